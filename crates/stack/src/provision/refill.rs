//! Publishes again what Kafka has lost, from what PostgreSQL holds.
//!
//! An order's outbox row is inserted again, with the same id. The orchestrator answers a trigger that it knows with
//! everything that is outstanding, or with the event of the saga's end; participants answer a command that they know with
//! their stored answer. So one row heals whatever was lost of an order: its trigger, a command, a reply, its end.
//!
//! order-api does this by itself for orders that stay open. What it cannot know is an end that somebody else missed: stock
//! that is still set aside for a completed order, a customer who was not told. Whoever looks into the databases can.

use std::collections::HashSet;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::Names;
use super::databases::superuser;
use crate::Error;
use crate::servers::Endpoints;

/// As long as topics keep what is on them: what was to be heard before that is lost by retention.
const REACH: Duration = Duration::from_secs(7 * 24 * 3600);
/// Orders that are looked at by one statement.
const PAGE: i64 = 5_000;
/// Rows that are inserted by one statement.
const BATCH: usize = 500;

const NOW: &str = "SELECT now()";
/// Ids are UUIDv7: they begin with the time.
const PAGE_OF_ORDERS: &str = "SELECT id, status FROM orders WHERE id > $1 AND updated_at <= $2 ORDER BY id LIMIT $3";
/// Orders from before [`REACH`] that are still open.
const OLD_STRAGGLERS: &str = "SELECT o.id, o.status FROM order_stragglers s JOIN orders o ON o.id = s.order_id \
    WHERE o.id <= $1 AND o.updated_at <= $2 ORDER BY o.id";
const STILL_RESERVED: &str = "SELECT order_id FROM reservations WHERE order_id = ANY($1) AND state = 'RESERVED'";
const NOTIFIED: &str = "SELECT order_id FROM notifications WHERE order_id = ANY($1)";
const INSERT_AGAIN: &str = "
INSERT INTO order_outbox
    (id, aggregatetype, aggregateid, type, payload, source, time, sagaid, specversion, contenttype, traceparent)
SELECT stored.* FROM UNNEST($1::text[]) AS lost (id) CROSS JOIN LATERAL (
    SELECT id, aggregatetype, aggregateid, type, payload, source, time, sagaid, specversion, contenttype, traceparent
      FROM order_outbox WHERE aggregateid = lost.id ORDER BY created_at DESC LIMIT 1
) AS stored";

/// Orders about which Kafka may have lost something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unfinished {
    /// PENDING or PARKED.
    pub open: Vec<Uuid>,
    /// Ended, but stock is still set aside or the customer was not told.
    pub unheard: Vec<Uuid>,
}

impl Unfinished {
    /// How many orders.
    pub fn len(&self) -> usize {
        self.open.len() + self.unheard.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The orders of the last 7 days that are open, or whose end somebody has not heard; of older ones, those that are open.
/// What changed within `settling` is left out: it may be on its way.
///
/// # Errors
/// When a database cannot be read.
pub async fn unfinished(endpoints: &Endpoints, names: &Names, settling: Duration) -> Result<Unfinished, Error> {
    let mut databases = Databases {
        orders: superuser(endpoints, &names.orders_database()).await?,
        inventory: superuser(endpoints, &names.database("inventory")).await?,
        notification: superuser(endpoints, &names.database("notification")).await?,
    };
    databases.unfinished(Some(REACH), settling).await
}

/// Connections to the databases that know what an order waits for.
pub struct Databases {
    /// The orders, and the outbox.
    pub orders: PgConnection,
    /// Where stock is set aside.
    pub inventory: PgConnection,
    /// What customers were told.
    pub notification: PgConnection,
}

impl Databases {
    /// The orders of the time before now that `reach` tells, or of all time, that are open, or whose end somebody has not
    /// heard; of older ones, those that are open. What changed within `settling` is left out.
    ///
    /// # Errors
    /// When a database cannot be read.
    pub async fn unfinished(&mut self, reach: Option<Duration>, settling: Duration) -> Result<Unfinished, Error> {
        self.find(reach, settling).await.map_err(Error::database("looking for orders that have not ended everywhere"))
    }

    async fn find(&mut self, reach: Option<Duration>, settling: Duration) -> Result<Unfinished, sqlx::Error> {
        let now: DateTime<Utc> = sqlx::query_scalar(NOW).fetch_one(&mut self.orders).await?;
        let (mut after, before) = (reach.map_or_else(Uuid::nil, |reach| first_id(now - reach)), now - settling);
        let mut found = Unfinished::default();
        let old = sqlx::query_as(OLD_STRAGGLERS).bind(after).bind(before).fetch_all(&mut self.orders).await?;
        sort_out(old, &mut self.inventory, &mut self.notification, &mut found).await?;
        loop {
            let page = sqlx::query_as(PAGE_OF_ORDERS).bind(after).bind(before).bind(PAGE);
            let page: Vec<(Uuid, String)> = page.fetch_all(&mut self.orders).await?;
            let Some((last, _)) = page.last() else { return Ok(found) };
            after = *last;
            sort_out(page, &mut self.inventory, &mut self.notification, &mut found).await?;
        }
    }
}

async fn sort_out(
    page: Vec<(Uuid, String)>,
    inventory: &mut PgConnection,
    notification: &mut PgConnection,
    found: &mut Unfinished,
) -> Result<(), sqlx::Error> {
    let (mut completed, mut ended) = (Vec::new(), Vec::new());
    for (id, status) in page {
        match status.as_str() {
            "PENDING" | "PARKED" => found.open.push(id),
            "COMPLETED" => {
                completed.push(id);
                ended.push(id);
            }
            _ => ended.push(id),
        }
    }
    let reserved: Vec<Uuid> = sqlx::query_scalar(STILL_RESERVED).bind(&completed).fetch_all(inventory).await?;
    let notified: Vec<Uuid> = sqlx::query_scalar(NOTIFIED).bind(&ended).fetch_all(notification).await?;
    let (reserved, notified): (HashSet<_>, HashSet<_>) =
        (reserved.into_iter().collect(), notified.into_iter().collect());
    found.unheard.extend(ended.into_iter().filter(|id| reserved.contains(id) || !notified.contains(id)));
    Ok(())
}

/// Inserts the outbox rows of `orders` again. Returns how many; an order whose row is gone with its day is not among them.
///
/// # Errors
/// When the database refuses; what was inserted before is published.
pub async fn publish_again(endpoints: &Endpoints, names: &Names, orders: &Unfinished) -> Result<u64, Error> {
    insert_again(&mut superuser(endpoints, &names.orders_database()).await?, orders).await
}

/// Like [`publish_again`], into a database that is connected to.
///
/// # Errors
/// When the database refuses; what was inserted before is published.
pub async fn insert_again(connection: &mut PgConnection, orders: &Unfinished) -> Result<u64, Error> {
    let doing = || Error::database("inserting outbox rows again");
    let ids: Vec<String> = orders.open.iter().chain(&orders.unheard).map(Uuid::to_string).collect();
    let mut inserted = 0;
    for batch in ids.chunks(BATCH) {
        let done = sqlx::query(INSERT_AGAIN).bind(batch).execute(&mut *connection).await.map_err(doing())?;
        inserted += done.rows_affected();
    }
    Ok(inserted)
}

/// The smallest UUIDv7 of that millisecond.
fn first_id(time: DateTime<Utc>) -> Uuid {
    let millis = u64::try_from(time.timestamp_millis()).unwrap_or_default();
    Uuid::from_u64_pair((millis << 16) | 0x7000, 0x8000_0000_0000_0000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_id_of_a_millisecond_is_before_all_others_of_it_and_after_those_of_the_one_before() {
        let time = DateTime::from_timestamp_millis(1_795_278_467_154).unwrap();
        let at = |millis: u64| uuid::Builder::from_unix_timestamp_millis(millis, &[0; 10]).into_uuid();
        let before = uuid::Builder::from_unix_timestamp_millis(1_795_278_467_153, &[0xff; 10]).into_uuid();
        assert!(before < first_id(time));
        assert_eq!(first_id(time), at(1_795_278_467_154));
    }
}
