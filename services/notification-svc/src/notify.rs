//! An order ended: its customer is told, once.

use std::collections::BTreeMap;

use messaging::{BatchHandler, Delivery, Envelope, HandlerError, Outgoing, Poison, Record, async_trait, participant};
use orders::OrderStatus;
use orders::messages::OrderEnded;
use sqlx::PgPool;
use uuid::Uuid;

use crate::metrics;

/// Inserts the notifications that are new.
pub const NOTIFY: &str = "
    INSERT INTO notifications (order_id, kind, customer_id, message)
    SELECT * FROM UNNEST($1::uuid[], $2::text[], $3::text[], $4::text[]) AS t (order_id, kind, customer_id, message)
    ORDER BY order_id, kind
    ON CONFLICT (order_id, kind) DO NOTHING
    RETURNING order_id, kind, customer_id, message";

/// Sends notifications: each is a row, and a line of the log that whoever delivers mail reads.
pub struct Notifier {
    pool: PgPool,
}

impl Notifier {
    /// Works in the database behind `pool`.
    pub fn new(pool: PgPool) -> Self {
        Notifier { pool }
    }
}

/// What the customer reads.
fn text(ended: &OrderEnded) -> String {
    let order = ended.order_id;
    match (ended.status, &ended.reason) {
        (OrderStatus::Completed, _) => format!("Your order {order} is on its way."),
        (_, Some(reason)) => format!("Your order {order} was cancelled: {reason}. Any charge was given back."),
        (_, None) => format!("Your order {order} was cancelled. Any charge was given back."),
    }
}

#[async_trait]
impl BatchHandler for Notifier {
    type Message = OrderEnded;

    fn decode(&self, record: &Record, envelope: &Envelope) -> Result<OrderEnded, Poison> {
        let ended = participant::about(record, envelope, |m: &OrderEnded| m.order_id)?;
        match ended.status {
            OrderStatus::Completed | OrderStatus::Cancelled => Ok(ended),
            status => Err(Poison::new("invalid-status", format!("{status} is no end of an order"))),
        }
    }

    async fn handle(&self, batch: &[Delivery<OrderEnded>]) -> Result<Vec<Outgoing>, HandlerError> {
        let mut ends: BTreeMap<(Uuid, &str), &OrderEnded> = BTreeMap::new();
        for Delivery { message: ended, .. } in batch {
            ends.entry((ended.order_id, ended.status.as_str())).or_insert(ended);
        }
        let (orders, kinds): (Vec<Uuid>, Vec<&str>) = ends.keys().copied().unzip();
        let customers: Vec<&str> = ends.values().map(|ended| ended.customer_id.as_str()).collect();
        let texts: Vec<String> = ends.values().map(|ended| text(ended)).collect();

        let sent: Vec<(Uuid, String, String, String)> =
            sqlx::query_as(NOTIFY).bind(orders).bind(kinds).bind(customers).bind(texts).fetch_all(&self.pool).await?;

        metrics::duplicates(batch.len() - sent.len());
        for (order_id, kind, customer_id, message) in sent {
            metrics::sent(&kind);
            tracing::info!(order.id = %order_id, customer.id = customer_id, kind, text = message, "customer notified");
        }
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancellation_says_why() {
        let mut ended = OrderEnded {
            order_id: Uuid::nil(),
            status: OrderStatus::Cancelled,
            saga_version: 4,
            reason: Some("payment declined".to_owned()),
            customer_id: "c-1".to_owned(),
        };
        assert!(text(&ended).contains("payment declined"));
        ended.status = OrderStatus::Completed;
        assert!(text(&ended).ends_with("is on its way."));
    }
}
