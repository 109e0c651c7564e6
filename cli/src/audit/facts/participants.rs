//! The participants' databases: money, stock, shipments.

use std::collections::HashMap;

use sqlx::postgres::PgConnection;
use uuid::Uuid;

use crate::audit::Target;

const PAYMENTS: &str =
    "SELECT order_id, payment_id, state, amount, currency, undone_at IS NOT NULL AS undone FROM payments";
const LEDGER: &str = "SELECT order_id, kind, debit_account, credit_account, amount, currency FROM ledger_entries";
const RESERVATIONS: &str = "\
SELECT order_id, reservation_id, state, undone_at IS NOT NULL AS undone,
       ARRAY(SELECT i ->> 'sku' FROM jsonb_array_elements(items) i) AS skus,
       ARRAY(SELECT (i ->> 'quantity')::bigint FROM jsonb_array_elements(items) i) AS quantities
  FROM reservations";
const STOCK: &str = "\
SELECT s.sku, s.initial, s.adjusted, s.available, s.reserved, s.shipped, coalesce(a.total, 0)::bigint AS adjustments
  FROM stock s LEFT JOIN (SELECT sku, sum(delta) AS total FROM adjustments GROUP BY sku) a ON a.sku = s.sku";
const SHIPMENTS: &str = "SELECT order_id, shipment_id, state, undone_at IS NOT NULL AS undone FROM shipments";

#[derive(sqlx::FromRow)]
pub(in crate::audit) struct Payment {
    pub(in crate::audit) order_id: Uuid,
    pub(in crate::audit) payment_id: Option<Uuid>,
    pub(in crate::audit) state: String,
    pub(in crate::audit) amount: Option<i64>,
    pub(in crate::audit) currency: Option<String>,
    pub(in crate::audit) undone: bool,
}

#[derive(sqlx::FromRow)]
pub(in crate::audit) struct LedgerEntry {
    pub(in crate::audit) order_id: Uuid,
    pub(in crate::audit) kind: String,
    pub(in crate::audit) debit_account: String,
    pub(in crate::audit) credit_account: String,
    pub(in crate::audit) amount: i64,
    pub(in crate::audit) currency: String,
}

/// The payment database in one snapshot.
pub(in crate::audit) struct Payments {
    pub(in crate::audit) payments: HashMap<Uuid, Payment>,
    pub(in crate::audit) ledger: Vec<LedgerEntry>,
}

impl Payments {
    pub(in crate::audit) async fn read(target: &Target) -> anyhow::Result<Self> {
        let mut db = super::snapshot(target, "payment").await?;
        let payments: Vec<Payment> = sqlx::query_as(PAYMENTS).fetch_all(&mut db).await?;
        let ledger = sqlx::query_as(LEDGER).fetch_all(&mut db).await?;
        Ok(Self { payments: payments.into_iter().map(|payment| (payment.order_id, payment)).collect(), ledger })
    }
}

#[derive(sqlx::FromRow)]
pub(in crate::audit) struct Reservation {
    pub(in crate::audit) order_id: Uuid,
    pub(in crate::audit) reservation_id: Uuid,
    pub(in crate::audit) state: String,
    pub(in crate::audit) undone: bool,
    pub(in crate::audit) skus: Vec<String>,
    pub(in crate::audit) quantities: Vec<i64>,
}

#[derive(sqlx::FromRow)]
pub(in crate::audit) struct Stock {
    pub(in crate::audit) sku: String,
    pub(in crate::audit) initial: i64,
    pub(in crate::audit) adjusted: i64,
    pub(in crate::audit) available: i64,
    pub(in crate::audit) reserved: i64,
    pub(in crate::audit) shipped: i64,
    /// Sum of its recorded adjustments.
    pub(in crate::audit) adjustments: i64,
}

/// The inventory database in one snapshot.
pub(in crate::audit) struct Inventory {
    pub(in crate::audit) reservations: HashMap<Uuid, Reservation>,
    pub(in crate::audit) stock: Vec<Stock>,
}

impl Inventory {
    pub(in crate::audit) async fn read(target: &Target) -> anyhow::Result<Self> {
        let mut db = super::snapshot(target, "inventory").await?;
        let reservations: Vec<Reservation> = sqlx::query_as(RESERVATIONS).fetch_all(&mut db).await?;
        let stock = sqlx::query_as(STOCK).fetch_all(&mut db).await?;
        let reservations = reservations.into_iter().map(|row| (row.order_id, row)).collect();
        Ok(Self { reservations, stock })
    }
}

#[derive(sqlx::FromRow)]
pub(in crate::audit) struct Shipment {
    pub(in crate::audit) order_id: Uuid,
    pub(in crate::audit) shipment_id: Option<Uuid>,
    pub(in crate::audit) state: String,
    pub(in crate::audit) undone: bool,
}

/// The shipments of the shipping database, by order.
pub(in crate::audit) async fn shipments(target: &Target) -> anyhow::Result<HashMap<Uuid, Shipment>> {
    let mut db = super::snapshot(target, "shipping").await?;
    let shipments: Vec<Shipment> = sqlx::query_as(SHIPMENTS).fetch_all(&mut db).await?;
    Ok(shipments.into_iter().map(|shipment| (shipment.order_id, shipment)).collect())
}

/// The ids of `orders` whose stock is still only reserved now.
pub(in crate::audit) async fn reserved(db: &mut PgConnection, orders: &[Uuid]) -> sqlx::Result<Vec<Uuid>> {
    const RESERVED: &str = "SELECT order_id FROM reservations WHERE order_id = ANY($1) AND state = 'RESERVED'";
    sqlx::query_scalar(RESERVED).bind(orders).fetch_all(db).await
}
