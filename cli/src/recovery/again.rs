//! Which orders' events are published again.

use std::collections::{BTreeSet, HashSet};

use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::Target;

/// Orders that wait for something.
const OPEN: &str = "SELECT id FROM orders WHERE status IN ('PENDING', 'PARKED')";
/// Orders whose end inventory-svc does not know, if they have ended.
const RESERVED: &str = "SELECT order_id FROM reservations WHERE state = 'RESERVED'";
/// Orders that have ended, and those whose customer was told so.
const ENDED: &str = "SELECT id FROM orders WHERE status IN ('COMPLETED', 'CANCELLED')";
const NOTIFIED: &str = "SELECT DISTINCT order_id FROM notifications";
/// Inserts the newest outbox row of each order again: the same message to every consumer.
const PUBLISH: &str = "
INSERT INTO order_outbox
    (id, aggregatetype, aggregateid, type, payload, source, time, sagaid, specversion, contenttype, traceparent)
SELECT stored.* FROM UNNEST($1::uuid[]) AS wanted (id) CROSS JOIN LATERAL (
    SELECT id, aggregatetype, aggregateid, type, payload, source, time, sagaid, specversion, contenttype, traceparent
      FROM order_outbox WHERE aggregateid = wanted.id::text ORDER BY created_at DESC LIMIT 1
) AS stored
RETURNING sagaid::uuid";
/// Orders to a statement.
const BATCH: usize = 1_000;

pub(super) struct Again {
    pub(super) published: usize,
    pub(super) without_event: Vec<Uuid>,
}

/// Publishes the event of every order again that somebody may not have heard the end of: the orchestrator answers it with
/// what is outstanding, or with the end. `fresh` ones have an event that is not published yet.
pub(super) async fn publish(target: &Target, db: &mut PgConnection, fresh: &[Uuid]) -> anyhow::Result<Again> {
    let fresh: HashSet<Uuid> = fresh.iter().copied().collect();
    let open: Vec<Uuid> = ids(db, OPEN).await?;
    let notified: HashSet<Uuid> =
        ids(&mut target.connect("notification").await?, NOTIFIED).await?.into_iter().collect();
    let mut wanted: BTreeSet<Uuid> = open.iter().copied().collect();
    wanted.extend(ids(&mut target.connect("inventory").await?, RESERVED).await?);
    wanted.extend(ids(db, ENDED).await?.into_iter().filter(|id| !notified.contains(id)));
    let wanted: Vec<Uuid> = wanted.into_iter().filter(|id| !fresh.contains(id)).collect();
    let mut published = HashSet::new();
    for batch in wanted.chunks(BATCH) {
        published.extend(sqlx::query_scalar::<_, Uuid>(PUBLISH).bind(batch).fetch_all(&mut *db).await?);
    }
    let without_event = open.into_iter().filter(|id| !published.contains(id) && !fresh.contains(id)).collect();
    Ok(Again { published: published.len(), without_event })
}

async fn ids(db: &mut PgConnection, query: &'static str) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar(query).fetch_all(db).await
}
