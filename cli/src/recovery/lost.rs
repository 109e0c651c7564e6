//! Orders that were accepted after the point: the databases have forgotten them, Kafka has not.

use std::collections::{HashMap, HashSet};

use anyhow::Context as _;
use messaging::{Envelope, Record, admin};
use orders::messages::OrderCreated;
use orders::topics::ORDER_CREATED;
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::Target;

const KNOWN: &str = "SELECT id FROM orders WHERE id = ANY($1::uuid[])";
/// What order-api writes for a new order, from its event. Its Idempotency-Key is not in there.
const ENTER: &str = "
WITH entered AS (
    INSERT INTO orders (id, customer_id, currency, total_minor, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $5)
    ON CONFLICT DO NOTHING
    RETURNING id
), lines AS (
    INSERT INTO order_items (order_id, line, sku, quantity, unit_price_minor)
    SELECT entered.id, item.line, item.sku, item.quantity, item.unit_price
      FROM entered CROSS JOIN UNNEST($6::integer[], $7::text[], $8::integer[], $9::bigint[])
        AS item (line, sku, quantity, unit_price)
)
INSERT INTO order_outbox (id, aggregatetype, aggregateid, type, payload, source, time, sagaid, traceparent)
SELECT $10, $11, entered.id::text, $12, $13, $14, $15, entered.id::text, $16 FROM entered";
/// Orders to a transaction.
const BATCH: usize = 500;

#[derive(Default)]
pub(super) struct Lost {
    pub(super) orders: Vec<Uuid>,
    pub(super) unreadable: Vec<String>,
}

/// An order as its event tells it.
struct Told<'r> {
    record: &'r Record,
    envelope: Envelope,
    order: OrderCreated,
}

/// Enters every order of `order.created` that the database does not know, with its event, as it was accepted.
pub(super) async fn recover(target: &Target, db: &mut PgConnection) -> anyhow::Result<Lost> {
    let records = admin::read_topic(&target.kafka, &target.topic(ORDER_CREATED.name)).await?;
    let mut lost = Lost::default();
    let mut told: HashMap<Uuid, Told<'_>> = HashMap::new();
    for record in &records {
        match read(record) {
            Ok(event) => drop(told.entry(event.order.order_id).or_insert(event)),
            Err(reason) => lost.unreadable.push(format!("{}@{}: {reason:#}", record.partition, record.offset)),
        }
    }
    let mut ids: Vec<Uuid> = told.keys().copied().collect();
    let known: HashSet<Uuid> = sqlx::query_scalar(KNOWN).bind(&ids).fetch_all(&mut *db).await?.into_iter().collect();
    // In the order in which they came.
    ids.sort();
    lost.orders = ids.into_iter().filter(|id| !known.contains(id)).collect();
    for batch in lost.orders.chunks(BATCH) {
        let mut transaction = db.begin().await?;
        for id in batch {
            enter(&mut transaction, &told[id]).await.with_context(|| format!("entering order {id}"))?;
        }
        transaction.commit().await?;
    }
    Ok(lost)
}

fn read(record: &Record) -> anyhow::Result<Told<'_>> {
    let envelope = Envelope::of(record)?;
    anyhow::ensure!(envelope.event_type == ORDER_CREATED.event_type, "its type is {}", envelope.event_type);
    let order: OrderCreated = record.json()?;
    anyhow::ensure!(envelope.subject == order.order_id.to_string(), "it is about another order than its key");
    Ok(Told { record, envelope, order })
}

async fn enter(db: &mut PgConnection, told: &Told<'_>) -> sqlx::Result<()> {
    let Told { record, envelope, order } = told;
    let column = |value: fn(&orders::messages::OrderLine) -> i64| order.items.iter().map(value).collect::<Vec<_>>();
    let skus: Vec<&str> = order.items.iter().map(|item| item.sku.as_str()).collect();
    let lines: Vec<i32> = (0..).take(order.items.len()).collect();
    sqlx::query(ENTER)
        .bind(order.order_id)
        .bind(&order.customer_id)
        .bind(order.currency.as_str())
        .bind(order.total)
        .bind(order.created_at)
        .bind(lines)
        .bind(skus)
        .bind(column(|item| item.quantity.into()))
        .bind(column(|item| item.unit_price))
        .bind(envelope.id)
        .bind(ORDER_CREATED.name)
        .bind(ORDER_CREATED.event_type)
        .bind(&record.payload)
        .bind(&envelope.source)
        .bind(record.header("ce_time"))
        .bind(&envelope.traceparent)
        .execute(db)
        .await
        .map(drop)
}
