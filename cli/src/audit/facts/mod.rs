//! What the databases and topics say, read once and kept in memory.

pub(super) mod messages;
pub(super) mod orders;
pub(super) mod participants;
pub(super) mod sagas;
pub(super) mod topics;

use anyhow::Context;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Executor};

use super::Target;

/// A connection in one read-only snapshot, which it keeps until it is dropped.
pub(super) async fn snapshot(target: &Target, database: &str) -> anyhow::Result<PgConnection> {
    let name = format!("{}{database}", target.database_prefix);
    let url = format!("postgres://postgres@{}/{name}", target.postgres);
    let options: PgConnectOptions = url.parse()?;
    let options = options.application_name("symphony audit");
    let mut connection = options.connect().await.with_context(|| format!("database {name}"))?;
    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    // The snapshot is taken by the first statement, not by BEGIN.
    connection.execute("SELECT").await?;
    Ok(connection)
}
