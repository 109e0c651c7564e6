//! Charge an order's total once; the undo gives it back once, or sees to it that it is never charged.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use messaging::{Delivery, HandlerError};
use orders::messages::PaymentRequested;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Message, slow};
use crate::metrics;
use crate::payment::{Payment, State};

/// Inserts the payments that are new and, in the same statement, the ledger entries of those that are charged.
pub const CHARGE: &str = "
    WITH asked AS (
        SELECT * FROM UNNEST($1::uuid[], $2::uuid[], $3::text[], $4::bigint[], $5::text[], $6::text[])
            AS t (order_id, payment_id, state, amount, currency, reason)
    ), new AS (
        INSERT INTO payments (order_id, payment_id, state, amount, currency, reason, answered_at)
        SELECT order_id, payment_id, state, amount, currency, reason, CASE WHEN state <> 'PENDING' THEN now() END
        FROM asked ORDER BY order_id
        ON CONFLICT (order_id) DO NOTHING
        RETURNING order_id, payment_id, state, amount, currency, reason, answered_at, undone_at
    ), posted AS (
        INSERT INTO ledger_entries (order_id, kind, debit_account, credit_account, amount, currency)
        SELECT order_id, 'CHARGE', 'receivable', 'revenue', amount, currency FROM new WHERE state = 'CHARGED'
    )
    SELECT * FROM new";

/// Undoes every payment that was not undone yet, or leaves a tombstone; reverses the entries of those charged, and
/// forgets the charges still to come.
pub const REFUND: &str = "
    WITH undone AS (
        INSERT INTO payments AS p (order_id, state, answered_at, undone_at)
        SELECT order_id, 'REFUSED', now(), now() FROM UNNEST($1::uuid[]) AS t (order_id) ORDER BY order_id
        ON CONFLICT (order_id) DO UPDATE SET
            state = CASE p.state WHEN 'CHARGED' THEN 'REFUNDED' WHEN 'PENDING' THEN 'REFUSED' ELSE p.state END,
            answered_at = COALESCE(p.answered_at, now()),
            undone_at = now()
        WHERE p.undone_at IS NULL
        RETURNING old.state AS was, new.*
    ), posted AS (
        INSERT INTO ledger_entries (order_id, kind, debit_account, credit_account, amount, currency)
        SELECT order_id, 'REFUND', 'revenue', 'receivable', amount, currency FROM undone WHERE was = 'CHARGED'
    ), forgotten AS (
        DELETE FROM slow_charges s USING undone u WHERE s.order_id = u.order_id
    )
    SELECT was, order_id, payment_id, state, amount, currency, reason, answered_at, undone_at FROM undone";

/// What the payment provider makes of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Charge,
    Decline(&'static str),
    /// It will charge, but answers later.
    Later,
}

fn provider(token: &str) -> Verdict {
    match token {
        "tok_ok" => Verdict::Charge,
        "tok_slow" => Verdict::Later,
        "tok_declined" => Verdict::Decline("payment declined"),
        _ => Verdict::Decline("unknown payment token"),
    }
}

/// Charges, by order, with the delivery that asked for it first.
pub type Charges<'b> = BTreeMap<Uuid, (&'b Delivery<Message>, &'b PaymentRequested)>;

/// Whether any of `charges` will be answered later.
pub fn any_slow(charges: &Charges<'_>) -> bool {
    charges.values().any(|(_, asked)| provider(&asked.token) == Verdict::Later)
}

/// Applies the charges that are new and returns their payments. Slow ones are answered `slow_after` from now.
pub async fn charge(
    connection: &mut PgConnection,
    charges: &Charges<'_>,
    slow_after: Duration,
) -> Result<Vec<Payment>, HandlerError> {
    let rows = charges.len();
    let (mut orders, mut payments) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
    let (mut states, mut reasons) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
    let (mut amounts, mut currencies) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
    for (order_id, (_, asked)) in charges {
        let (state, reason) = match provider(&asked.token) {
            Verdict::Charge => (State::Charged, None),
            Verdict::Decline(reason) => (State::Declined, Some(reason)),
            Verdict::Later => (State::Pending, None),
        };
        orders.push(*order_id);
        payments.push(Uuid::new_v5(order_id, b"payment"));
        states.push(state.as_str());
        amounts.push(asked.amount);
        currencies.push(asked.currency.as_str());
        reasons.push(reason);
    }
    let new: Vec<Payment> = sqlx::query_as(CHARGE)
        .bind(orders)
        .bind(payments)
        .bind(states)
        .bind(amounts)
        .bind(currencies)
        .bind(reasons)
        .fetch_all(&mut *connection)
        .await?;
    let pending = new.iter().filter(|payment| payment.state == State::Pending).map(|payment| payment.order_id);
    slow::defer(connection, pending.filter_map(|order| charges.get(&order)), slow_after).await?;
    Ok(new)
}

/// A payment that an undo changed.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Undone {
    /// Its state before; `None` when there was no payment, so that the row is a tombstone.
    was: Option<State>,
    /// The payment as it is now.
    #[sqlx(flatten)]
    pub payment: Payment,
}

impl Undone {
    /// Counts what the undo did.
    pub fn count(&self) {
        metrics::applied("refund", self.payment.state.as_str());
        if self.was.is_none() {
            metrics::tombstone();
        }
    }
}

/// Applies the undos that are new and returns their payments.
pub async fn refund(connection: &mut PgConnection, orders: &BTreeSet<Uuid>) -> Result<Vec<Undone>, HandlerError> {
    let orders: Vec<Uuid> = orders.iter().copied().collect();
    Ok(sqlx::query_as(REFUND).bind(orders).fetch_all(connection).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_tokens_are_charged() {
        assert_eq!(provider("tok_ok"), Verdict::Charge);
        assert_eq!(provider("tok_slow"), Verdict::Later);
        assert_eq!(provider("tok_declined"), Verdict::Decline("payment declined"));
        assert_eq!(provider("tok_ok "), Verdict::Decline("unknown payment token"));
        assert_eq!(provider(""), Verdict::Decline("unknown payment token"));
    }
}
