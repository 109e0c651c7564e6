//! The one statement that makes orders durable.

use std::collections::HashSet;

use orders::messages::OrderLine;
use orders::topics::ORDER_CREATED;
use sqlx::{PgPool, Row};
use uuid::Uuid;

use crate::SOURCE;

/// Inserts a batch of orders with their lines and outbox rows, all or none. An order whose id or idempotency key is
/// there already is skipped, with its lines and outbox row, so the same batch can be inserted again after a lost
/// connection. Returns the ids that were inserted.
///
/// Rows come sorted by key, so two replicas that insert the same keys cannot lock each other out.
pub const INSERT_ORDERS: &str = "
WITH request AS MATERIALIZED (
    SELECT * FROM UNNEST($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::bytea[], $7::uuid[],
                         $8::bytea[], $9::text[], $10::text[])
        AS request (id, customer_id, currency, total, key, hash, event_id, payload, time, traceparent)
), accepted AS (
    INSERT INTO orders (id, customer_id, currency, total_minor, idempotency_key, request_hash)
    SELECT id, customer_id, currency, total, key, hash FROM request
    ON CONFLICT DO NOTHING
    RETURNING id
), lines AS (
    INSERT INTO order_items (order_id, line, sku, quantity, unit_price_minor)
    SELECT item.order_id, item.line, item.sku, item.quantity, item.unit_price
      FROM UNNEST($11::uuid[], $12::integer[], $13::text[], $14::bigint[], $15::bigint[])
        AS item (order_id, line, sku, quantity, unit_price)
      JOIN accepted ON accepted.id = item.order_id
), events AS (
    INSERT INTO order_outbox (id, aggregatetype, aggregateid, type, payload, source, time, sagaid, traceparent)
    SELECT event_id, $16, request.id::text, $17, payload, $18, time, request.id::text, traceparent
      FROM request JOIN accepted ON accepted.id = request.id
)
SELECT id FROM accepted";

/// The orders that have these ids or hold these idempotency keys. A statement of its own: the snapshot of the insert
/// cannot see an order that was committed while it waited for its key.
pub const FIND_ORDERS: &str = "
SELECT id, idempotency_key, request_hash FROM orders WHERE id = ANY($1::uuid[])
UNION
SELECT id, idempotency_key, request_hash FROM orders WHERE idempotency_key = ANY($2::text[])";

/// An order to insert, with its event ready to be published.
#[derive(Clone, Debug)]
pub struct NewOrder {
    pub id: Uuid,
    pub customer_id: String,
    pub currency: String,
    /// In minor units.
    pub total: i64,
    pub items: Vec<OrderLine>,
    /// The idempotency key and the hash of the request that came with it.
    pub key: Option<(String, Vec<u8>)>,
    pub event_id: Uuid,
    /// The value of `order.created`, encoded once.
    pub payload: Vec<u8>,
    /// When the order was accepted: `ce_time`, RFC 3339.
    pub time: String,
    /// Trace of the request.
    pub traceparent: Option<String>,
}

impl NewOrder {
    fn key(&self) -> Option<&str> {
        self.key.as_ref().map(|(key, _)| key.as_str())
    }
}

/// What became of one order of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It is durable under its own id.
    New,
    /// The same request was made before, under this id.
    Known(Uuid),
    /// Its key belongs to another request.
    KeyReused,
    /// It is there or it is not: the database went away before it could tell.
    Unknown,
}

/// The order in which a batch must be inserted: by key.
pub fn sort(batch: &mut [impl AsRef<NewOrder>]) {
    batch.sort_by(|a, b| {
        let (a, b) = (a.as_ref(), b.as_ref());
        a.key().cmp(&b.key()).then(a.id.cmp(&b.id))
    });
}

/// Inserts a [sorted](sort) batch by one statement, durable when this returns. One answer for each order.
///
/// # Errors
/// When nothing of the batch was inserted, or, for a lost connection, when nobody knows.
pub async fn insert(pool: &PgPool, batch: &[impl AsRef<NewOrder>]) -> Result<Vec<Inserted>, sqlx::Error> {
    let orders: Vec<&NewOrder> = batch.iter().map(AsRef::as_ref).collect();
    let accepted = insert_new(pool, &orders).await?;
    let skipped: Vec<&NewOrder> = orders.iter().copied().filter(|order| !accepted.contains(&order.id)).collect();
    let stored = match skipped.as_slice() {
        [] => Vec::new(),
        skipped => find(pool, skipped).await.unwrap_or_else(|error| {
            tracing::warn!(error = &error as &dyn std::error::Error, "orders skipped by an insert were not found");
            Vec::new()
        }),
    };
    let outcome =
        |order: &&NewOrder| if accepted.contains(&order.id) { Inserted::New } else { verdict(order, &stored) };
    Ok(orders.iter().map(outcome).collect())
}

/// What became of an earlier request with the key of `order`; none if there was no such request.
///
/// # Errors
/// When the database does not tell.
pub async fn known(pool: &PgPool, order: &NewOrder) -> Result<Option<Inserted>, sqlx::Error> {
    if order.key.is_none() {
        return Ok(None);
    }
    let stored = find(pool, &[order]).await?;
    Ok((!stored.is_empty()).then(|| verdict(order, &stored)))
}

async fn insert_new(pool: &PgPool, orders: &[&NewOrder]) -> Result<HashSet<Uuid>, sqlx::Error> {
    let lines: Vec<(Uuid, i32, &OrderLine)> =
        orders.iter().flat_map(|order| (0..).zip(&order.items).map(|(line, item)| (order.id, line, item))).collect();
    let accepted: Vec<Uuid> = sqlx::query_scalar(INSERT_ORDERS)
        .bind(column(orders, |order| order.id))
        .bind(column(orders, |order| order.customer_id.as_str()))
        .bind(column(orders, |order| order.currency.as_str()))
        .bind(column(orders, |order| order.total))
        .bind(column(orders, |order| order.key()))
        .bind(column(orders, |order| order.key.as_ref().map(|(_, hash)| hash.as_slice())))
        .bind(column(orders, |order| order.event_id))
        .bind(column(orders, |order| order.payload.as_slice()))
        .bind(column(orders, |order| order.time.as_str()))
        .bind(column(orders, |order| order.traceparent.as_deref()))
        .bind(column(&lines, |(order, _, _)| *order))
        .bind(column(&lines, |(_, line, _)| *line))
        .bind(column(&lines, |(_, _, item)| item.sku.as_str()))
        .bind(column(&lines, |(_, _, item)| i64::from(item.quantity)))
        .bind(column(&lines, |(_, _, item)| item.unit_price))
        .bind(ORDER_CREATED.name)
        .bind(ORDER_CREATED.event_type)
        .bind(SOURCE)
        .fetch_all(pool)
        .await?;
    Ok(accepted.into_iter().collect())
}

fn column<'a, R, T>(rows: &'a [R], value: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}

/// An order that was there already.
struct Stored {
    id: Uuid,
    key: Option<String>,
    hash: Option<Vec<u8>>,
}

async fn find(pool: &PgPool, orders: &[&NewOrder]) -> Result<Vec<Stored>, sqlx::Error> {
    let ids = column(orders, |order| order.id);
    let keys: Vec<&str> = orders.iter().filter_map(|order| order.key()).collect();
    let rows = sqlx::query(FIND_ORDERS).bind(ids).bind(keys).fetch_all(pool).await?;
    rows.iter().map(|row| Ok(Stored { id: row.try_get(0)?, key: row.try_get(1)?, hash: row.try_get(2)? })).collect()
}

/// Why the insert skipped `order`.
fn verdict(order: &NewOrder, stored: &[Stored]) -> Inserted {
    if stored.iter().any(|stored| stored.id == order.id) {
        return Inserted::New;
    }
    let Some((key, hash)) = &order.key else { return Inserted::Unknown };
    match stored.iter().find(|stored| stored.key.as_ref() == Some(key)) {
        Some(stored) if stored.hash.as_ref() == Some(hash) => Inserted::Known(stored.id),
        Some(_) => Inserted::KeyReused,
        None => Inserted::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(id: u128, key: Option<&str>) -> NewOrder {
        NewOrder {
            id: Uuid::from_u128(id),
            customer_id: "c".into(),
            currency: "EUR".into(),
            total: 1,
            items: Vec::new(),
            key: key.map(|key| (key.to_owned(), vec![1])),
            event_id: Uuid::nil(),
            payload: Vec::new(),
            time: String::new(),
            traceparent: None,
        }
    }

    struct Row(NewOrder);

    impl AsRef<NewOrder> for Row {
        fn as_ref(&self) -> &NewOrder {
            &self.0
        }
    }

    #[test]
    fn a_batch_is_inserted_in_the_order_of_its_keys() {
        let mut batch =
            [Row(order(1, Some("b"))), Row(order(2, None)), Row(order(4, Some("a"))), Row(order(3, Some("a")))];
        sort(&mut batch);
        assert_eq!(batch.map(|row| row.0.id.as_u128()), [2, 3, 4, 1]);
    }

    #[test]
    fn a_skipped_order_is_known_by_its_id_or_by_its_key_and_hash() {
        let stored = |id, key: Option<&str>, hash: u8| Stored {
            id: Uuid::from_u128(id),
            key: key.map(str::to_owned),
            hash: key.map(|_| vec![hash]),
        };
        assert_eq!(verdict(&order(1, None), &[stored(1, None, 0)]), Inserted::New);
        assert_eq!(verdict(&order(1, Some("k")), &[stored(7, Some("k"), 1)]), Inserted::Known(Uuid::from_u128(7)));
        assert_eq!(verdict(&order(1, Some("k")), &[stored(7, Some("k"), 2)]), Inserted::KeyReused);
        assert_eq!(verdict(&order(1, Some("k")), &[]), Inserted::Unknown);
        assert_eq!(verdict(&order(1, None), &[]), Inserted::Unknown);
    }
}
