//! A database per test, copied from one that was migrated once.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use sha2::{Digest, Sha256};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor};
use stack::Repository;
use stack::provision::databases;
use tokio::sync::Mutex;

use crate::servers::Servers;
use crate::wait::wait_for;

const LOCK: &str = "SELECT pg_advisory_lock(hashtextextended('testkit templates', 0))";
const UNLOCK: &str = "SELECT pg_advisory_unlock_all()";
/// SQLSTATE of a template that somebody is connected to.
const IN_USE: &str = "55006";

/// Creates `<prefix><name>`, as its migrations leave it.
pub(crate) async fn create(servers: &Servers, prefix: &str, name: &str) -> anyhow::Result<()> {
    let template = format!("{}{name}", templates(servers).await?);
    let mut admin = databases::superuser(&servers.endpoints(), "postgres").await?;
    // Another run may be looking whether the template is up to date.
    let copied = wait_for(Duration::from_secs(60), async || {
        let copy = format!("CREATE DATABASE {prefix}{name} TEMPLATE {template}");
        match admin.execute(AssertSqlSafe(copy)).await {
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(IN_USE) => None,
            result => Some(result),
        }
    });
    copied.await.with_context(|| format!("{template} stays in use"))?.with_context(|| format!("copying {template}"))?;
    grant(&mut admin, prefix, name).await
}

/// A copy has the rights inside of its template, but not those on the database itself.
async fn grant(admin: &mut PgConnection, prefix: &str, name: &str) -> anyhow::Result<()> {
    let reader = if name == "orders" { ", debezium" } else { "" };
    let grants = format!(
        "REVOKE ALL ON DATABASE {prefix}{name} FROM PUBLIC; GRANT CONNECT ON DATABASE {prefix}{name} TO {name}{reader}"
    );
    admin.execute(AssertSqlSafe(grants)).await.with_context(|| format!("granting {prefix}{name}"))?;
    Ok(())
}

/// Drops `<prefix><name>`, ending whatever is connected to it.
pub(crate) async fn drop_database(servers: &Servers, prefix: &str, name: &str) -> anyhow::Result<()> {
    let mut admin = databases::superuser(&servers.endpoints(), "postgres").await?;
    admin.execute(AssertSqlSafe(format!("DROP DATABASE IF EXISTS {prefix}{name} WITH (FORCE)"))).await?;
    Ok(())
}

/// The prefix of the migrated databases to copy, made by whoever comes first and checked once by each process for each
/// PostgreSQL.
async fn templates(servers: &Servers) -> anyhow::Result<String> {
    static READY: Mutex<BTreeMap<u16, String>> = Mutex::const_new(BTreeMap::new());
    let mut ready = READY.lock().await;
    if let Some(prefix) = ready.get(&servers.postgres) {
        return Ok(prefix.clone());
    }
    let repository = Repository::find()?;
    let prefix = format!("template_{}_", digest(&repository.migrations())?);
    let mut admin = databases::superuser(&servers.endpoints(), "postgres").await?;
    sqlx::query(LOCK).execute(&mut admin).await?;
    databases::ensure(&servers.endpoints(), &repository, &prefix).await?;
    sqlx::query(UNLOCK).execute(&mut admin).await?;
    ready.insert(servers.postgres, prefix.clone());
    Ok(prefix)
}

/// Twelve hexadecimal digits over every migration, so that a changed one makes new templates.
fn digest(migrations: &Path) -> anyhow::Result<String> {
    let mut hash = Sha256::new();
    let mut folders = vec![migrations.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
        let mut paths: Vec<_> = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
        paths.sort();
        for path in paths {
            hash.update(path.as_os_str().as_encoded_bytes());
            if path.is_dir() {
                folders.push(path);
            } else {
                hash.update(std::fs::read(&path)?);
            }
        }
    }
    Ok(hash.finalize()[..6].iter().map(|byte| format!("{byte:02x}")).collect())
}
