//! Orders as the API shows them.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use orders::OrderStatus;
use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};
use utoipa::ToSchema;
use uuid::Uuid;

/// The lines of these orders.
pub const ITEMS_OF_ORDERS: &str = "
SELECT order_id, sku, quantity, unit_price_minor FROM order_items
 WHERE order_id = ANY($1::uuid[]) ORDER BY order_id, line";

/// Where an order is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[schema(as = OrderStatus)]
pub enum Status {
    /// Accepted; its saga is running or will start.
    Pending,
    /// Paid, reserved and shipped. Terminal.
    Completed,
    /// Undone; nothing is charged, reserved or shipped. Terminal.
    Cancelled,
    /// Stopped until an operator acts.
    Parked,
}

impl From<OrderStatus> for Status {
    fn from(status: OrderStatus) -> Self {
        match status {
            OrderStatus::Pending => Status::Pending,
            OrderStatus::Completed => Status::Completed,
            OrderStatus::Cancelled => Status::Cancelled,
            OrderStatus::Parked => Status::Parked,
        }
    }
}

/// An order.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// Its id; also the id of its saga.
    pub order_id: Uuid,
    pub status: Status,
    /// Why it was cancelled or parked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub customer_id: String,
    /// ISO 4217 code.
    #[schema(example = "EUR")]
    pub currency: String,
    /// Sum over the lines, in minor units.
    #[schema(example = 3998)]
    pub total: i64,
    pub items: Vec<OrderItem>,
    pub created_at: DateTime<Utc>,
    /// When its status changed last.
    pub updated_at: DateTime<Utc>,
}

/// A line of an order.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderItem {
    #[schema(example = "SKU-001")]
    pub sku: String,
    #[schema(example = 2)]
    pub quantity: i32,
    /// Price of one, in minor units.
    #[schema(example = 1999)]
    pub unit_price: i64,
}

/// Reads a status column.
///
/// # Errors
/// When the column holds none, which its CHECK forbids.
pub(crate) fn status(text: &str) -> Result<OrderStatus, sqlx::Error> {
    text.parse().map_err(|error| sqlx::Error::Decode(Box::<orders::InvalidValue>::new(error)))
}

impl Order {
    /// Reads a row with the columns `id, status, reason, customer_id, currency, total_minor, created_at, updated_at`;
    /// the lines come by [`with_items`].
    ///
    /// # Errors
    /// When a column is missing or of another type.
    pub(crate) fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Order {
            order_id: row.try_get("id")?,
            status: status(row.try_get("status")?)?.into(),
            reason: row.try_get("reason")?,
            customer_id: row.try_get("customer_id")?,
            currency: row.try_get("currency")?,
            total: row.try_get("total_minor")?,
            items: Vec::new(),
            created_at: row.try_get("created_at")?,
            updated_at: row.try_get("updated_at")?,
        })
    }
}

/// Gives every order its lines, by one query.
///
/// # Errors
/// Those of the query.
pub(crate) async fn with_items(pool: &PgPool, mut orders: Vec<Order>) -> Result<Vec<Order>, sqlx::Error> {
    if orders.is_empty() {
        return Ok(orders);
    }
    let ids: Vec<Uuid> = orders.iter().map(|order| order.order_id).collect();
    let rows = sqlx::query(ITEMS_OF_ORDERS).bind(ids).fetch_all(pool).await?;
    let mut items: HashMap<Uuid, Vec<OrderItem>> = HashMap::new();
    for row in rows {
        let item = OrderItem { sku: row.try_get(1)?, quantity: row.try_get(2)?, unit_price: row.try_get(3)? };
        items.entry(row.try_get(0)?).or_default().push(item);
    }
    for order in &mut orders {
        order.items = items.remove(&order.order_id).unwrap_or_default();
    }
    Ok(orders)
}
