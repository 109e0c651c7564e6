//! Roles, databases and their migrations.

use std::path::{Path, PathBuf};

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor};
use tokio::task::JoinSet;

use crate::Error;
use crate::layout::Repository;
use crate::servers::Endpoints;

const EXISTS: &str = "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)";
/// SQLSTATEs of a database that another run made at the same moment.
const MADE_BY_ANOTHER: [&str; 2] = ["42P04", "23505"];

/// Makes the roles, then every database that has migrations, and brings each to its newest version.
pub async fn ensure(endpoints: &Endpoints, repository: &Repository, prefix: &str) -> Result<(), Error> {
    roles(endpoints, repository).await?;
    let mut open = JoinSet::new();
    for folder in folders(repository)? {
        let (endpoints, prefix) = (endpoints.clone(), prefix.to_owned());
        open.spawn(async move { ensure_one(&endpoints, &folder, &prefix).await });
    }
    while let Some(done) = open.join_next().await {
        done.unwrap_or_else(|error| Err(Error::Other(format!("a migration was interrupted: {error}"))))?;
    }
    Ok(())
}

/// Makes the roles of `migrations/roles.sql`.
pub async fn roles(endpoints: &Endpoints, repository: &Repository) -> Result<(), Error> {
    let file = repository.migrations().join("roles.sql");
    let script = std::fs::read_to_string(&file).map_err(Error::io(format!("reading {}", file.display())))?;
    let mut admin = superuser(endpoints, "postgres").await?;
    admin.execute(AssertSqlSafe(script)).await.map_err(Error::database("making the roles"))?;
    close(admin).await
}

/// A connection of the superuser.
pub async fn superuser(endpoints: &Endpoints, database: &str) -> Result<PgConnection, Error> {
    let doing = || Error::database(format!("connecting to database {database}"));
    let options: PgConnectOptions = endpoints.database("postgres", database).parse().map_err(doing())?;
    options.connect().await.map_err(doing())
}

/// The names of the databases, without prefix: one for each folder of migrations.
pub fn names(repository: &Repository) -> Result<Vec<String>, Error> {
    Ok(folders(repository)?.iter().map(|folder| name_of(folder)).collect())
}

fn folders(repository: &Repository) -> Result<Vec<PathBuf>, Error> {
    let migrations = repository.migrations();
    let entries = std::fs::read_dir(&migrations).map_err(Error::io(format!("reading {}", migrations.display())))?;
    let mut folders: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    Ok(folders)
}

fn name_of(folder: &Path) -> String {
    folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

async fn ensure_one(endpoints: &Endpoints, folder: &Path, prefix: &str) -> Result<(), Error> {
    let role = name_of(folder);
    let database = format!("{prefix}{role}");
    create(endpoints, &database, &role).await?;
    let failed = |source| match source {
        MigrateError::VersionMismatch(version) => Error::Other(format!(
            "database {database} was made by another text of migration {version}; `symphony down --wipe` removes it \
             and all other data"
        )),
        source => Error::Migration { database: database.clone(), source },
    };
    let migrator = Migrator::new(folder).await.map_err(failed)?;
    let mut connection = superuser(endpoints, &database).await?;
    // Takes an advisory lock: of two runs at once, one migrates and the other finds it done.
    migrator.run_direct(None, &mut connection, false).await.map_err(failed)?;
    close(connection).await
}

async fn create(endpoints: &Endpoints, database: &str, role: &str) -> Result<(), Error> {
    let doing = || Error::database(format!("creating database {database}"));
    let mut admin = superuser(endpoints, "postgres").await?;
    if !sqlx::query_scalar::<_, bool>(EXISTS).bind(database).fetch_one(&mut admin).await.map_err(doing())? {
        let made = admin.execute(AssertSqlSafe(format!("CREATE DATABASE \"{database}\""))).await;
        match made {
            Err(sqlx::Error::Database(error)) if error.code().is_some_and(|code| MADE_BY_ANOTHER.contains(&&*code)) => {
            }
            made => made.map(|_| ()).map_err(doing())?,
        }
    }
    // A service can enter its own database and no other.
    let mut grants = format!(
        "REVOKE ALL ON DATABASE \"{database}\" FROM PUBLIC; GRANT CONNECT ON DATABASE \"{database}\" TO \"{role}\";"
    );
    if role == "orders" {
        grants.push_str(&format!(" GRANT CONNECT ON DATABASE \"{database}\" TO debezium;"));
    }
    match admin.execute(AssertSqlSafe(grants)).await {
        // "tuple concurrently updated": another run granted the same at the same moment.
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("XX000") => {}
        granted => granted.map(|_| ()).map_err(doing())?,
    }
    close(admin).await
}

async fn close(connection: PgConnection) -> Result<(), Error> {
    connection.close().await.map_err(Error::database("closing a connection"))
}
