//! Set stock aside for an order, every line or none; the undo gives it back once, or sees to it that it never happens.

use std::collections::{BTreeSet, HashMap};

use messaging::HandlerError;
use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use crate::metrics;
use crate::reservation::{self, Line, Reservation, State};
use crate::stock::{Locked, Moves};

/// Inserts the reservations that are new.
pub const RESERVE: &str = "
    INSERT INTO reservations (order_id, reservation_id, state, items, reason, answered_at)
    SELECT order_id, reservation_id, state, items, reason, now()
    FROM UNNEST($1::uuid[], $2::uuid[], $3::text[], $4::jsonb[], $5::text[])
        AS t (order_id, reservation_id, state, items, reason)
    ORDER BY order_id
    ON CONFLICT (order_id) DO NOTHING
    RETURNING order_id, reservation_id, state, items, reason, answered_at, undone_at";

/// Undoes every reservation that was not undone yet, or leaves a tombstone.
pub const RELEASE: &str = "
    INSERT INTO reservations AS r (order_id, reservation_id, state, items, answered_at, undone_at)
    SELECT order_id, reservation_id, 'REFUSED', '[]', now(), now()
    FROM UNNEST($1::uuid[], $2::uuid[]) AS t (order_id, reservation_id) ORDER BY order_id
    ON CONFLICT (order_id) DO UPDATE SET
        state = CASE r.state WHEN 'RESERVED' THEN 'RELEASED' ELSE r.state END,
        undone_at = now()
    WHERE r.undone_at IS NULL
    RETURNING old.state AS was, new.order_id, new.reservation_id, new.state, new.items, new.reason, new.answered_at,
        new.undone_at";

/// Decides a reservation against what is left, and takes it from there. `Err` says why not.
fn decide(lines: &[Line], available: &mut HashMap<String, i64>) -> Result<(), String> {
    for Line { sku, quantity } in lines {
        match available.get(sku) {
            None => return Err(format!("unknown SKU {sku}")),
            Some(left) if left < quantity => {
                return Err(format!("not enough stock of {sku}: {quantity} asked for, {left} available"));
            }
            Some(_) => {}
        }
    }
    for Line { sku, quantity } in lines {
        available.entry(sku.clone()).and_modify(|left| *left -= quantity);
    }
    Ok(())
}

/// Decides the orders that have no reservation yet, in the order in which they came, against the locked stock, and
/// stores their reservations. `None` when another replica stored one of them meanwhile: what was decided for the others
/// then counted its pieces twice, and the transaction must start again.
pub async fn reserve(
    connection: &mut PgConnection,
    asked: &[(Uuid, Vec<Line>)],
    locked: &mut Locked,
    moves: &mut Moves,
) -> Result<Option<Vec<Reservation>>, HandlerError> {
    let (mut orders, mut ids, mut states) = (vec![], vec![], vec![]);
    let (mut items, mut reasons) = (vec![], vec![]);
    for (order_id, lines) in asked.iter().filter(|(order_id, _)| !locked.known.contains(order_id)) {
        let rejection = decide(lines, &mut locked.available).err();
        let state = if rejection.is_none() { State::Reserved } else { State::Rejected };
        orders.push(*order_id);
        ids.push(reservation::id(*order_id));
        states.push(state.as_str());
        items.push(Json(lines));
        reasons.push(rejection);
    }
    let wanted = orders.len();
    if wanted == 0 {
        return Ok(Some(Vec::new()));
    }
    let new: Vec<Reservation> = sqlx::query_as(RESERVE)
        .bind(orders)
        .bind(ids)
        .bind(states)
        .bind(items)
        .bind(reasons)
        .fetch_all(connection)
        .await?;
    if new.len() < wanted {
        return Ok(None);
    }
    for reservation in new.iter().filter(|reservation| reservation.state == State::Reserved) {
        moves.reserve(&reservation.items);
    }
    Ok(Some(new))
}

/// A reservation that an undo changed.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Undone {
    /// Its state before; `None` when there was no reservation, so that the row is a tombstone.
    was: Option<State>,
    /// The reservation as it is now.
    #[sqlx(flatten)]
    pub reservation: Reservation,
}

impl Undone {
    /// Counts what the undo did.
    pub fn count(&self) {
        metrics::applied("release", self.reservation.state.as_str());
        match self.was {
            None => metrics::tombstone(),
            Some(State::Shipped) => {
                tracing::error!(
                    order.id = %self.reservation.order_id,
                    "a release came after the order completed; the pieces stay shipped"
                );
                metrics::anomaly("release", State::Shipped.as_str());
            }
            Some(_) => {}
        }
    }
}

/// Applies the undos that are new and returns their reservations.
pub async fn release(
    connection: &mut PgConnection,
    orders: &BTreeSet<Uuid>,
    moves: &mut Moves,
) -> Result<Vec<Undone>, HandlerError> {
    if orders.is_empty() {
        return Ok(Vec::new());
    }
    let (orders, ids): (Vec<Uuid>, Vec<Uuid>) = orders.iter().map(|order| (*order, reservation::id(*order))).unzip();
    let undone: Vec<Undone> = sqlx::query_as(RELEASE).bind(orders).bind(ids).fetch_all(connection).await?;
    for undone in undone.iter().filter(|undone| undone.was == Some(State::Reserved)) {
        moves.release(&undone.reservation.items);
    }
    Ok(undone)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(sku: &str, quantity: i64) -> Line {
        Line { sku: sku.to_owned(), quantity }
    }

    fn stock() -> HashMap<String, i64> {
        HashMap::from([("A".to_owned(), 5), ("B".to_owned(), 1)])
    }

    #[test]
    fn one_short_line_takes_nothing_of_the_others() {
        let mut available = stock();
        let reason = decide(&[line("A", 2), line("B", 2)], &mut available).expect_err("B is short");
        assert_eq!(reason, "not enough stock of B: 2 asked for, 1 available");
        assert_eq!(available, stock());
    }

    #[test]
    fn an_unknown_unit_is_named() {
        let reason = decide(&[line("A", 1), line("Z", 1)], &mut stock()).expect_err("Z is unknown");
        assert_eq!(reason, "unknown SKU Z");
    }

    #[test]
    fn the_first_order_takes_the_last_piece() {
        let mut available = stock();
        assert!(decide(&[line("B", 1)], &mut available).is_ok());
        assert!(decide(&[line("B", 1)], &mut available).is_err());
    }
}
