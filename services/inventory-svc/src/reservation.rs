//! A reservation as the database holds it, and the answers that follow from it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use messaging::participant::Reply;
use orders::messages::{InventoryLine, InventoryRejected, InventoryReleased, InventoryReserved};
use orders::topics;
use serde::{Deserialize, Serialize};
use sqlx::PgExecutor;
use sqlx::types::Json;
use uuid::Uuid;

/// Reason of the answer to a reservation whose undo came first.
const REFUSED: &str = "reservation refused: it was released before it was made";

/// Where a reservation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum State {
    /// Every line is set aside.
    Reserved,
    /// A line could not be served; nothing was set aside.
    Rejected,
    /// Set aside, then given back.
    Released,
    /// The order completed: the pieces are gone.
    Shipped,
    /// Undone before it was made: it never will be.
    Refused,
}

impl State {
    /// The name in the database and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Reserved => "RESERVED",
            State::Rejected => "REJECTED",
            State::Released => "RELEASED",
            State::Shipped => "SHIPPED",
            State::Refused => "REFUSED",
        }
    }
}

/// How many of a unit; in a reservation each unit once, sorted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The unit.
    pub sku: String,
    /// How many, at least one.
    pub quantity: i64,
}

/// The command's lines with the quantities of each unit added up.
pub fn sum_by_sku(items: &[InventoryLine]) -> Vec<Line> {
    let mut sums: BTreeMap<&str, i64> = BTreeMap::new();
    for item in items {
        *sums.entry(item.sku.as_str()).or_default() += i64::from(item.quantity);
    }
    sums.into_iter().map(|(sku, quantity)| Line { sku: sku.to_owned(), quantity }).collect()
}

/// A row of `reservations`.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Reservation {
    /// The order it is for.
    pub order_id: Uuid,
    /// Its own id.
    pub reservation_id: Uuid,
    /// Where it is.
    pub state: State,
    /// What was asked for; empty when only the undo is known.
    pub items: Json<Vec<Line>>,
    /// Why it was rejected.
    pub reason: Option<String>,
    /// When the command's answer was decided.
    pub answered_at: DateTime<Utc>,
    /// When the undo was applied.
    pub undone_at: Option<DateTime<Utc>>,
}

impl Reservation {
    /// The answer to the command: the same after the undo, or after the order completed, as before.
    pub fn reserve_reply(&self) -> Reply {
        let rejected = |reason: &str| {
            let value = InventoryRejected { order_id: self.order_id, reason: reason.to_owned() };
            Reply::new(topics::INVENTORY_REJECTED.channel(), self.answered_at, &value)
        };
        match self.state {
            State::Rejected => rejected(self.reason.as_deref().unwrap_or_default()),
            State::Refused => rejected(REFUSED),
            State::Reserved | State::Released | State::Shipped => {
                let value = InventoryReserved { order_id: self.order_id, reservation_id: self.reservation_id };
                Reply::new(topics::INVENTORY_RESERVED.channel(), self.answered_at, &value)
            }
        }
    }

    /// The answer to the undo. `None` while there was none.
    pub fn release_reply(&self) -> Option<Reply> {
        let value = InventoryReleased { order_id: self.order_id };
        self.undone_at.map(|time| Reply::new(topics::INVENTORY_RELEASED.channel(), time, &value))
    }
}

/// The id of the reservation of `order_id`.
pub fn id(order_id: Uuid) -> Uuid {
    Uuid::new_v5(&order_id, b"reservation")
}

/// Reads reservations as they are now; run after the statement that found them there, for its snapshot may be older.
pub const STORED: &str = "
    SELECT order_id, reservation_id, state, items, reason, answered_at, undone_at
    FROM reservations WHERE order_id = ANY($1)";

/// The reservations of `orders`, in no order; fewer when some are unknown.
pub async fn stored(executor: impl PgExecutor<'_>, orders: &[Uuid]) -> Result<Vec<Reservation>, sqlx::Error> {
    sqlx::query_as(STORED).bind(orders).fetch_all(executor).await
}

#[cfg(test)]
mod tests {
    use orders::Sku;

    use super::*;

    #[test]
    fn a_unit_on_two_lines_counts_once() {
        let item = |sku: &str, quantity| InventoryLine { sku: Sku::try_from(sku).expect("a SKU"), quantity };
        let lines = sum_by_sku(&[item("B", 2), item("A", 1), item("B", u32::MAX)]);
        let expected = [("A", 1), ("B", 2 + i64::from(u32::MAX))];
        assert_eq!(lines, expected.map(|(sku, quantity)| Line { sku: sku.to_owned(), quantity }));
    }
}
