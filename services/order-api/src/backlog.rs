//! Refuses orders while too much of the outbox waits to be published. Nor are open ones published again meanwhile.
//!
//! What Debezium has not read, PostgreSQL keeps: by and by the log would fill the disk, or the replication slot would be
//! lost at `max_slot_wal_keep_size`. Long before, clients are told to come later.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use service_kit::CancellationToken;
use service_kit::health::CheckResult;
use sqlx::PgPool;

use crate::config::BacklogConfig;
use crate::metrics;

/// Bytes of log that PostgreSQL keeps for those who read the outbox; 0 without a slot, or when it is lost. Every role
/// may ask.
pub const RETAINED_BYTES: &str = "
SELECT COALESCE(max(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)), 0)::bigint FROM pg_replication_slots
 WHERE database = current_database() AND slot_type = 'logical' AND NOT temporary AND wal_status IS DISTINCT FROM 'lost'";

/// Whether orders are refused. Cheap to clone.
#[derive(Clone)]
pub struct Backlog {
    full: Arc<AtomicBool>,
    config: BacklogConfig,
}

impl Backlog {
    /// Nothing is refused until [`Backlog::watch`] has looked.
    pub fn new(config: BacklogConfig) -> Self {
        Self { full: Arc::default(), config }
    }

    /// Whether an order is refused now.
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// When a client may try again: the time of the next look, and some for the log to be read.
    pub fn retry_after(&self) -> Duration {
        Duration::from_millis(self.config.interval_ms).max(Duration::from_secs(5))
    }

    /// For `/readyz?verbose`.
    pub fn check(&self) -> CheckResult {
        let megabytes = metrics::RETAINED_BYTES.get() >> 20;
        let state = format!("{megabytes} MB of log wait to be published, of at most {}", self.config.max_retained_mb);
        if self.is_full() { Err(state + ": orders are refused") } else { Ok(state) }
    }

    /// Looks every interval until `stop`. A look that fails leaves it as it was.
    pub async fn watch(self, pool: PgPool, stop: CancellationToken) {
        let interval = Duration::from_millis(self.config.interval_ms);
        loop {
            match sqlx::query_scalar(RETAINED_BYTES).fetch_one(&pool).await {
                Ok(retained) => self.note(retained),
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "the outbox's backlog is not known");
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(interval) => {}
            }
        }
    }

    /// Orders are taken again at three quarters of the limit, so that it does not flutter.
    fn note(&self, retained: i64) {
        metrics::RETAINED_BYTES.set(retained);
        let limit = self.config.max_retained_mb.saturating_mul(1 << 20);
        let was_full = self.is_full();
        let full = retained.unsigned_abs() > if was_full { limit / 4 * 3 } else { limit };
        self.full.store(full, Ordering::Relaxed);
        if full && !was_full {
            tracing::error!(
                retained_bytes = retained,
                "too much of the outbox waits to be published: orders are refused"
            );
        } else if was_full && !full {
            tracing::info!(retained_bytes = retained, "the outbox is published again: orders are taken");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_refused_above_the_limit_and_until_well_below() {
        let backlog = Backlog::new(BacklogConfig { interval_ms: 1000, max_retained_mb: 4 });
        let full_at = |megabytes: i64| {
            backlog.note(megabytes << 20);
            backlog.is_full()
        };
        assert_eq!([0, 4, 5, 4, 3, 4].map(full_at), [false, false, true, true, false, false]);
    }
}
