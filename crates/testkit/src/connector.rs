//! An environment's own connector: its publication comes with the database, its slot is made here.

use std::time::Duration;

use anyhow::Context;
use sqlx::Executor;
use stack::Repository;
use stack::provision::{Names, OutboxConnector, databases, slot};

use crate::servers::Servers;
use crate::wait::wait_for;

/// A task takes seconds to start when several start at once.
const ACTIVE_WITHIN: Duration = Duration::from_secs(90);
const DROP_SLOT: &str = "\
SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1 AND NOT active";
const SLOT_EXISTS: &str = "SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)";

/// Makes slot and connector, and waits until Debezium reads.
pub(crate) async fn start(servers: &Servers, names: &Names) -> anyhow::Result<()> {
    let endpoints = servers.endpoints();
    slot::ensure(&endpoints, names).await?;
    let connector = OutboxConnector::load(&Repository::find()?, &endpoints, names)?;
    // No stored offsets to forget: the name was never used before.
    connector.apply(false).await?;
    connector.until_running().await?;
    slot::until_active(&endpoints, names, ACTIVE_WITHIN).await?;
    Ok(())
}

/// Waits until the connector runs; one that has failed is restarted.
pub(crate) async fn until_running(servers: &Servers, names: &Names) -> anyhow::Result<()> {
    Ok(OutboxConnector::load(&Repository::find()?, &servers.endpoints(), names)?.until_running().await?)
}

/// Removes connector and slot.
pub(crate) async fn remove(servers: &Servers, names: &Names) -> anyhow::Result<()> {
    let endpoints = servers.endpoints();
    OutboxConnector::load(&Repository::find()?, &endpoints, names)?.delete().await?;
    let mut admin = databases::superuser(&endpoints, "postgres").await?;
    let dropped = wait_for(Duration::from_secs(10), async || {
        // Debezium lets go of the slot a moment after the connector is gone.
        admin.execute(sqlx::query(DROP_SLOT).bind(&names.slot)).await.ok()?;
        let exists: bool = sqlx::query_scalar(SLOT_EXISTS).bind(&names.slot).fetch_one(&mut admin).await.ok()?;
        (!exists).then_some(())
    });
    dropped.await.with_context(|| format!("replication slot {} stays in use", names.slot))
}
