//! Replies go before starts: new sagas wait while too many are in flight.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use messaging::{Gate, async_trait};
use sqlx::PgPool;
use tokio::sync::Mutex;

use crate::metrics;

/// The timer of a parked saga has no time: it waits for people, not for replies.
pub(crate) const COUNT_IN_FLIGHT: &str = "
SELECT count(*) FROM saga_timer WHERE partition = ANY($1) AND due_at IS NOT NULL
";

/// How long a count is trusted; in between, this process's own starts and ends are added to it.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// How many sagas are in flight on the partitions of this process.
pub(crate) struct InFlight {
    pool: PgPool,
    most: i64,
    /// Started less ended since the last count.
    since: AtomicI64,
    counted: Mutex<Option<Counted>>,
}

struct Counted {
    at: Instant,
    partitions: Vec<i32>,
    sagas: i64,
}

impl InFlight {
    /// A gate that closes when `most` sagas are in flight.
    pub(crate) fn new(pool: PgPool, most: u32) -> Self {
        InFlight { pool, most: i64::from(most), since: AtomicI64::new(0), counted: Mutex::default() }
    }

    /// Sagas that a stored batch started, less those that it ended.
    pub(crate) fn add(&self, sagas: i64) {
        self.since.fetch_add(sagas, Ordering::Relaxed);
    }

    async fn count(&self, partitions: &[i32]) -> Result<i64, sqlx::Error> {
        sqlx::query_scalar(COUNT_IN_FLIGHT).bind(partitions).fetch_one(&self.pool).await
    }
}

#[async_trait]
impl Gate for InFlight {
    async fn pause_deferred(&self, partitions: &[i32]) -> bool {
        let mut counted = self.counted.lock().await;
        let known = counted
            .as_ref()
            .is_some_and(|counted| counted.at.elapsed() < COUNT_EVERY && counted.partitions == partitions);
        if !known {
            match self.count(partitions).await {
                Ok(sagas) => {
                    // The consumer's loop asks between two batches, so nothing is counted twice or missed.
                    self.since.store(0, Ordering::Relaxed);
                    *counted = Some(Counted { at: Instant::now(), partitions: partitions.to_vec(), sagas });
                }
                // Starts cannot be stored either: the batch that tries waits for the database, and says so.
                Err(error) => tracing::debug!(%error, "sagas in flight cannot be counted"),
            }
        }
        let sagas = counted.as_ref().map_or(0, |counted| counted.sagas) + self.since.load(Ordering::Relaxed);
        let pause = sagas >= self.most;
        metrics::IN_FLIGHT.set(sagas);
        metrics::STARTS_PAUSED.set(i64::from(pause));
        pause
    }
}
