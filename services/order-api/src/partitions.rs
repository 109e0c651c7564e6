//! Daily partitions of the outbox: made ahead, dropped when nobody needs them.
//!
//! The work is done by a function in the database, which runs as its owner: this service's role cannot change tables.
//! Should no partition be ahead, because this could not run for days, rows go to a default partition, which the next run
//! turns into one of those days.

use std::time::Duration;

use service_kit::CancellationToken;
use sqlx::{PgPool, Row};

use crate::config::OutboxConfig;
use crate::metrics;

/// Makes the partitions of today and the next `$2` days, and drops those over `$1` days old that the connector has
/// confirmed. Does nothing while another replica is at it.
pub const MAINTAIN_OUTBOX: &str = "SELECT created, dropped, partitions, in_default FROM outbox_maintain($1, $2)";

/// A run that failed, because the database was away or a lock was not to be had, is tried again after this.
const RETRY: Duration = Duration::from_secs(30);

/// Maintains the outbox at once and then every interval, until `stop`.
pub async fn run(pool: PgPool, config: OutboxConfig, stop: CancellationToken) {
    let interval = Duration::from_millis(config.maintenance_interval_ms);
    loop {
        let wait = match maintain(&pool, &config).await {
            Ok(()) => interval,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the outbox was not maintained");
                RETRY.min(interval)
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn maintain(pool: &PgPool, config: &OutboxConfig) -> Result<(), sqlx::Error> {
    let row = sqlx::query(MAINTAIN_OUTBOX)
        .bind(i32::from(config.keep_days))
        .bind(i32::from(config.days_ahead))
        .fetch_one(pool)
        .await?;
    let (created, dropped, partitions): (i32, i32, i32) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let in_default: i64 = row.try_get(3)?;
    metrics::OUTBOX_PARTITIONS.set(partitions.into());
    metrics::OUTBOX_DEFAULT_ROWS.set(in_default);
    if created > 0 || dropped > 0 {
        tracing::info!(created, dropped, partitions, "the outbox was maintained");
    }
    if in_default > 0 {
        tracing::warn!(rows = in_default, "outbox rows are outside of the daily partitions");
    }
    Ok(())
}
