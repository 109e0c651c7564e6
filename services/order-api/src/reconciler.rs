//! Publishes an order again whose saga seems lost.
//!
//! An order that is pending for long may have lost its trigger, a command, or its end event in Kafka; one that is parked,
//! the event that tells how it went on. Its outbox row is inserted again, the same message to every consumer; the
//! orchestrator answers a trigger that it knows with everything that is outstanding, or with the event of the saga's rest
//! or end. So one rule heals every loss, and this service needs to know nothing of the others. What was not lost is only
//! said twice.
//!
//! While nothing is published at all, saying it again adds to the log that waits and heals nothing. So it waits, as new
//! orders do, while too much of it does.

use std::time::Duration;

use service_kit::CancellationToken;
use sqlx::postgres::types::PgInterval;
use sqlx::{PgPool, Row};

use crate::backlog::Backlog;
use crate::config::ReconcilerConfig;
use crate::metrics;

/// Takes the reconciler's turn until the transaction ends, and reads the stretch of time to look at next: what is
/// `$1` old and was not looked at. No row when another replica has the turn. A stretch is at most ten minutes, so that
/// whoever was away for long catches up in steps.
pub const TAKE_TURN: &str = "
SELECT scanned_through, LEAST(now() - $1::interval, scanned_through + interval '10 minutes') AS horizon,
       scanned_through + interval '10 minutes' < now() - $1::interval AS behind
  FROM order_reconciler WHERE pg_try_advisory_xact_lock(hashtextextended('order_reconciler', 0))";

/// Remembers the orders of a stretch of time that are still open: pending or parked. An order is remembered until it has
/// ended, so one that is parked after this is among them: it was pending here.
pub const FIND_STRAGGLERS: &str = "
INSERT INTO order_stragglers (order_id, created_at, due_at)
SELECT id, created_at, now() FROM orders
 WHERE created_at > $1 AND created_at <= $2 AND status IN ('PENDING', 'PARKED') ORDER BY id
ON CONFLICT (order_id) DO NOTHING";

/// Marks a stretch as looked at. The last minute is looked at again: an insert that took long may still appear in it.
pub const ADVANCE: &str = "
UPDATE order_reconciler SET scanned_through = GREATEST(scanned_through, LEAST($1, now() - interval '1 minute'))";

/// Inserts the outbox rows again of up to `$1` stragglers that are due, and forgets those that have ended. The next time
/// is after `$2`, then after twice as long each time, up to `$3`. The newest row is copied, so an open order always has
/// one in a recent partition.
pub const REEMIT: &str = "
WITH due AS (
    SELECT order_id FROM order_stragglers WHERE due_at <= now() ORDER BY due_at LIMIT $1
), forgotten AS (
    DELETE FROM order_stragglers USING due, orders
     WHERE order_stragglers.order_id = due.order_id AND orders.id = due.order_id
       AND orders.status NOT IN ('PENDING', 'PARKED')
), open AS (
    UPDATE order_stragglers SET emitted_at = now(), emissions = emissions + 1,
           due_at = now() + LEAST($2::interval * power(2, LEAST(emissions, 16)), $3::interval)
      FROM due JOIN orders ON orders.id = due.order_id
     WHERE order_stragglers.order_id = due.order_id AND orders.status IN ('PENDING', 'PARKED')
    RETURNING order_stragglers.order_id, orders.status
), emitted AS (
    INSERT INTO order_outbox
        (id, aggregatetype, aggregateid, type, payload, source, time, sagaid, specversion, contenttype, traceparent)
    SELECT stored.* FROM open CROSS JOIN LATERAL (
        SELECT id, aggregatetype, aggregateid, type, payload, source, time, sagaid, specversion, contenttype, traceparent
          FROM order_outbox WHERE aggregateid = open.order_id::text ORDER BY created_at DESC LIMIT 1
    ) AS stored
    RETURNING aggregateid
)
SELECT (SELECT count(*) FROM open WHERE status = 'PENDING') AS pending,
       (SELECT count(*) FROM open WHERE status = 'PARKED') AS parked,
       (SELECT count(*) FROM emitted) AS emitted,
       (SELECT count(*) FROM order_stragglers) AS stragglers";

/// What one look did.
#[derive(Debug, Default, PartialEq, Eq)]
struct Look {
    /// There is more to look at.
    behind: bool,
    /// Orders that were due, by status.
    pending: i64,
    parked: i64,
    /// Those of them that were published again.
    emitted: i64,
    stragglers: i64,
}

impl Look {
    /// Whether more may be due than one look takes: after a topic was lost, all that was in flight is.
    fn is_full(&self, max_batch: u32) -> bool {
        self.pending + self.parked >= i64::from(max_batch)
    }
}

/// Looks every interval until `stop`. One replica at a time: the others find the turn taken. Not while the `backlog` is full:
/// with enough open orders, what is published again would fill the disk that refusing new ones is to save.
pub async fn run(pool: PgPool, config: ReconcilerConfig, backlog: Backlog, stop: CancellationToken) {
    let interval = Duration::from_millis(config.interval_ms);
    let mut wait = interval;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        wait = interval;
        if backlog.is_full() {
            continue;
        }
        match look(&pool, &config).await {
            Ok(Some(look)) => {
                report(&look);
                if look.behind || look.is_full(config.max_batch) {
                    wait = Duration::ZERO;
                }
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "open orders were not reconciled");
            }
        }
    }
}

fn report(look: &Look) {
    metrics::STRAGGLERS.set(look.stragglers);
    metrics::REEMITTED.inc_by(u64::try_from(look.emitted).unwrap_or_default());
    if look.pending > 0 {
        tracing::warn!(orders = look.pending, "orders pending for too long were published again");
    }
    if look.parked > 0 {
        // Whoever parked is known from its saga's alarm; it stays so until an operator acts.
        tracing::info!(orders = look.parked, "parked orders were published again");
    }
    let missing = look.pending + look.parked - look.emitted;
    if missing > 0 {
        tracing::error!(orders = missing, "open orders have no outbox row to publish again");
    }
}

/// One look, in one transaction; `None` when it is another replica's turn.
async fn look(pool: &PgPool, config: &ReconcilerConfig) -> Result<Option<Look>, sqlx::Error> {
    let pending_after = interval(config.pending_after_ms);
    let mut transaction = pool.begin().await?;
    let Some(turn) = sqlx::query(TAKE_TURN).bind(pending_after).fetch_optional(&mut *transaction).await? else {
        return Ok(None);
    };
    let (from, to): (chrono::DateTime<chrono::Utc>, chrono::DateTime<chrono::Utc>) =
        (turn.try_get(0)?, turn.try_get(1)?);
    if from < to {
        sqlx::query(FIND_STRAGGLERS).bind(from).bind(to).execute(&mut *transaction).await?;
        sqlx::query(ADVANCE).bind(to).execute(&mut *transaction).await?;
    }
    let emitted = sqlx::query(REEMIT)
        .bind(i64::from(config.max_batch))
        .bind(pending_after)
        .bind(interval(config.max_interval_ms))
        .fetch_one(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(Some(Look {
        behind: turn.try_get(2)?,
        pending: emitted.try_get(0)?,
        parked: emitted.try_get(1)?,
        emitted: emitted.try_get(2)?,
        stragglers: emitted.try_get(3)?,
    }))
}

fn interval(milliseconds: u64) -> PgInterval {
    PgInterval { months: 0, days: 0, microseconds: i64::try_from(milliseconds).unwrap_or(i64::MAX / 1000) * 1000 }
}
