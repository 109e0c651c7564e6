//! Stock: locked once a batch, in the order of the SKUs; written once a batch and unit.

use std::collections::{BTreeMap, HashMap, HashSet};

use messaging::HandlerError;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::reservation::Line;

/// Finds which of the orders $1 have a reservation and locks, sorted, the stock that a batch may move: the units
/// ($2 orders, $3 SKUs) of those that have none, and what is set aside for the orders $4.
///
/// Its snapshot is older than its locks, so it can miss a reservation that was committed while it waited for them: the
/// primary key then refuses the insert, and the batch starts again.
pub const LOCK: &str = "
    WITH known AS (
        SELECT order_id, state, items FROM reservations WHERE order_id = ANY($1::uuid[])
    ), wanted AS (
        SELECT line.sku FROM UNNEST($2::uuid[], $3::text[]) AS line (order_id, sku)
        WHERE line.order_id NOT IN (SELECT order_id FROM known)
        UNION
        SELECT line.sku FROM known, jsonb_to_recordset(known.items) AS line (sku text)
        WHERE known.state = 'RESERVED' AND known.order_id = ANY($4::uuid[])
    ), locked AS (
        SELECT sku, available FROM stock WHERE sku IN (SELECT sku FROM wanted) ORDER BY sku FOR NO KEY UPDATE
    )
    SELECT sku, available, NULL::uuid AS order_id FROM locked
    UNION ALL
    SELECT NULL, NULL, order_id FROM known";

/// Moves pieces between the heaps of each unit.
pub const APPLY: &str = "
    UPDATE stock SET
        available = stock.available + moved.available,
        reserved = stock.reserved + moved.reserved,
        shipped = stock.shipped + moved.shipped
    FROM UNNEST($1::text[], $2::bigint[], $3::bigint[], $4::bigint[]) AS moved (sku, available, reserved, shipped)
    WHERE stock.sku = moved.sku";

/// What a batch found under its locks.
#[derive(Debug, Default)]
pub struct Locked {
    /// Pieces available, by SKU; a SKU that is not there is unknown.
    pub available: HashMap<String, i64>,
    /// The orders that have a reservation already.
    pub known: HashSet<Uuid>,
}

/// Runs [`LOCK`]. `wanted` are the orders and SKUs to reserve, `moving` the orders to release or complete.
pub async fn lock(
    connection: &mut PgConnection,
    orders: &[Uuid],
    wanted: &[(Uuid, &str)],
    moving: &[Uuid],
) -> Result<Locked, HandlerError> {
    let (wanted_orders, wanted_skus): (Vec<Uuid>, Vec<&str>) = wanted.iter().copied().unzip();
    let rows: Vec<(Option<String>, Option<i64>, Option<Uuid>)> = sqlx::query_as(LOCK)
        .bind(orders)
        .bind(wanted_orders)
        .bind(wanted_skus)
        .bind(moving)
        .fetch_all(connection)
        .await?;
    let mut locked = Locked::default();
    for row in rows {
        match row {
            (Some(sku), Some(available), _) => {
                locked.available.insert(sku, available);
            }
            (_, _, order_id) => locked.known.extend(order_id),
        }
    }
    Ok(locked)
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Move {
    available: i64,
    reserved: i64,
    shipped: i64,
}

/// What a batch moves, added up by SKU.
#[derive(Debug, Default)]
pub struct Moves(BTreeMap<String, Move>);

impl Moves {
    /// Available pieces become reserved.
    pub fn reserve(&mut self, lines: &[Line]) {
        self.add(lines, |quantity| Move { available: -quantity, reserved: quantity, shipped: 0 });
    }

    /// Reserved pieces become available.
    pub fn release(&mut self, lines: &[Line]) {
        self.add(lines, |quantity| Move { available: quantity, reserved: -quantity, shipped: 0 });
    }

    /// Reserved pieces become shipped.
    pub fn ship(&mut self, lines: &[Line]) {
        self.add(lines, |quantity| Move { available: 0, reserved: -quantity, shipped: quantity });
    }

    fn add(&mut self, lines: &[Line], by: impl Fn(i64) -> Move) {
        for line in lines {
            let change = by(line.quantity);
            let sum = self.0.entry(line.sku.clone()).or_default();
            sum.available += change.available;
            sum.reserved += change.reserved;
            sum.shipped += change.shipped;
        }
    }

    /// Runs [`APPLY`]; a unit from which as much came as went is not written.
    pub async fn apply(mut self, connection: &mut PgConnection) -> Result<(), HandlerError> {
        self.0.retain(|_, moved| *moved != Move::default());
        if self.0.is_empty() {
            return Ok(());
        }
        let units = self.0.len() as u64;
        let (mut skus, mut available, mut reserved, mut shipped) = (vec![], vec![], vec![], vec![]);
        for (sku, moved) in self.0 {
            skus.push(sku);
            available.push(moved.available);
            reserved.push(moved.reserved);
            shipped.push(moved.shipped);
        }
        let updated = sqlx::query(APPLY)
            .bind(skus)
            .bind(available)
            .bind(reserved)
            .bind(shipped)
            .execute(connection)
            .await?
            .rows_affected();
        if updated == units {
            Ok(())
        } else {
            let detail = format!("{units} units were to be moved, but {updated} have stock");
            Err(HandlerError::poison("unknown-stock", detail))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_writes_the_sum_of_its_moves() {
        let lines = |quantity| [Line { sku: "A".to_owned(), quantity }];
        let mut moves = Moves::default();
        moves.reserve(&lines(5));
        moves.reserve(&lines(3));
        moves.release(&lines(3));
        moves.ship(&lines(4));
        assert_eq!(moves.0["A"], Move { available: -5, reserved: 1, shipped: 4 });
    }
}
