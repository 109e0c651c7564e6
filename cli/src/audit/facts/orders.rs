//! The orders database.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use crate::audit::Target;

const ORDERS: &str = "\
SELECT o.id, o.status, o.reason IS NOT NULL AS reasoned, o.total_minor, o.currency, o.saga_version, o.created_at,
       coalesce(i.lines, 0) AS lines, coalesce(i.total, 0)::bigint AS lines_total
  FROM orders o
  LEFT JOIN (SELECT order_id, count(*) AS lines, sum(quantity::numeric * unit_price_minor) AS total
               FROM order_items GROUP BY order_id) i ON i.order_id = o.id";

const SHARED_KEYS: &str = "\
SELECT idempotency_key, count(*) FROM orders WHERE idempotency_key IS NOT NULL GROUP BY 1 HAVING count(*) > 1";

const OUTBOX: &str = "\
SELECT id, aggregatetype, aggregateid, type AS event_type, sha256(payload) AS digest, created_at FROM order_outbox";

/// How long an outbox row is kept at least; an older order need not have one any more.
const OLDEST_OUTBOX: &str = "SELECT min(created_at) FROM order_outbox";

const STATUSES: &str = "SELECT id, status FROM orders WHERE status <> 'PENDING'";
const OUTBOX_IDS: &str = "SELECT id FROM order_outbox";

#[derive(sqlx::FromRow)]
pub(in crate::audit) struct Order {
    pub(in crate::audit) id: Uuid,
    pub(in crate::audit) status: String,
    pub(in crate::audit) reasoned: bool,
    pub(in crate::audit) total_minor: i64,
    pub(in crate::audit) currency: String,
    pub(in crate::audit) saga_version: i32,
    pub(in crate::audit) created_at: DateTime<Utc>,
    pub(in crate::audit) lines: i64,
    pub(in crate::audit) lines_total: i64,
}

#[derive(sqlx::FromRow)]
pub(in crate::audit) struct OutboxRow {
    pub(in crate::audit) id: Uuid,
    pub(in crate::audit) aggregatetype: String,
    pub(in crate::audit) aggregateid: String,
    pub(in crate::audit) event_type: String,
    pub(in crate::audit) digest: Vec<u8>,
    pub(in crate::audit) created_at: DateTime<Utc>,
}

/// The orders database in one snapshot.
pub(in crate::audit) struct Orders {
    pub(in crate::audit) orders: HashMap<Uuid, Order>,
    /// Keys that more than one order has, with their number.
    pub(in crate::audit) shared_keys: Vec<(String, i64)>,
    /// By id; a row inserted again by the reconciler has the same id and is here once.
    pub(in crate::audit) outbox: HashMap<Uuid, OutboxRow>,
    /// Ids of rows that say different things under one id.
    pub(in crate::audit) contradictory: Vec<Uuid>,
    /// Time of the oldest row that is still kept.
    pub(in crate::audit) oldest_outbox: Option<DateTime<Utc>>,
}

impl Orders {
    pub(in crate::audit) async fn read(target: &Target) -> anyhow::Result<Self> {
        let mut db = super::snapshot(target, "orders").await?;
        let orders: Vec<Order> = sqlx::query_as(ORDERS).fetch_all(&mut db).await?;
        let shared_keys = sqlx::query_as(SHARED_KEYS).fetch_all(&mut db).await?;
        let oldest_outbox = sqlx::query_scalar(OLDEST_OUTBOX).fetch_one(&mut db).await?;
        let rows: Vec<OutboxRow> = sqlx::query_as(OUTBOX).fetch_all(&mut db).await?;
        let mut outbox: HashMap<Uuid, OutboxRow> = HashMap::with_capacity(rows.len());
        let mut contradictory = Vec::new();
        for row in rows {
            match outbox.get(&row.id) {
                Some(first) if first.digest != row.digest || first.aggregateid != row.aggregateid => {
                    contradictory.push(row.id);
                }
                Some(_) => {}
                None => {
                    outbox.insert(row.id, row);
                }
            }
        }
        let orders = orders.into_iter().map(|order| (order.id, order)).collect();
        Ok(Self { orders, shared_keys, outbox, contradictory, oldest_outbox })
    }
}

/// What the orders database said when the audit began.
pub(in crate::audit) struct OrdersBefore {
    /// Orders that were not PENDING, with their status.
    pub(in crate::audit) statuses: HashMap<Uuid, String>,
    pub(in crate::audit) outbox: Vec<Uuid>,
}

impl OrdersBefore {
    pub(in crate::audit) async fn read(target: &Target) -> anyhow::Result<Self> {
        let mut db = super::snapshot(target, "orders").await?;
        let statuses: Vec<(Uuid, String)> = sqlx::query_as(STATUSES).fetch_all(&mut db).await?;
        let outbox = sqlx::query_scalar(OUTBOX_IDS).fetch_all(&mut db).await?;
        Ok(Self { statuses: statuses.into_iter().collect(), outbox })
    }
}

/// The ids of `orders` that are still PENDING now.
pub(in crate::audit) async fn pending(db: &mut PgConnection, orders: &[Uuid]) -> sqlx::Result<Vec<Uuid>> {
    const PENDING: &str = "SELECT id FROM orders WHERE id = ANY($1) AND status = 'PENDING'";
    sqlx::query_scalar(PENDING).bind(orders).fetch_all(db).await
}
