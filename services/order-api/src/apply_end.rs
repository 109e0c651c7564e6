//! `order.completed`, `order.cancelled`, `order.parked`: the saga tells how an order ended.

use std::collections::HashMap;

use messaging::{BatchHandler, Delivery, Envelope, HandlerError, Outgoing, Poison, Record, async_trait, participant};
use orders::messages::OrderEnded;
use orders::topics::{ORDER_CANCELLED, ORDER_COMPLETED, ORDER_PARKED};
use orders::{OrderStatus, Topic};
use sqlx::PgPool;
use uuid::Uuid;

use crate::metrics;
use crate::status_feed::StatusFeed;

/// The topics, and the status that each may carry.
pub const END_TOPICS: [(Topic, OrderStatus); 3] = [
    (ORDER_COMPLETED, OrderStatus::Completed),
    (ORDER_CANCELLED, OrderStatus::Cancelled),
    (ORDER_PARKED, OrderStatus::Parked),
];

/// Applies a batch of end events. A saga can be parked, go on, and end: only a version greater than the one applied
/// changes an order, so what comes late or again changes nothing.
pub const APPLY_ENDS: &str = "
UPDATE orders SET status = ended.status, reason = ended.reason, saga_version = ended.version, updated_at = now()
  FROM UNNEST($1::uuid[], $2::text[], $3::text[], $4::integer[]) AS ended (id, status, reason, version)
 WHERE orders.id = ended.id AND orders.saga_version < ended.version";

/// Writes the status of orders.
pub struct ApplyEnd {
    pub pool: PgPool,
    /// Told when something changed.
    pub feed: StatusFeed,
}

#[async_trait]
impl BatchHandler for ApplyEnd {
    type Message = OrderEnded;

    fn decode(&self, record: &Record, envelope: &Envelope) -> Result<OrderEnded, Poison> {
        let ended: OrderEnded = participant::about(record, envelope, |ended: &OrderEnded| ended.order_id)?;
        check(&record.topic, ended)
    }

    async fn handle(&self, batch: &[Delivery<OrderEnded>]) -> Result<Vec<Outgoing>, HandlerError> {
        let ends = last_of_each(batch.iter().map(|delivery| &delivery.message));
        let changed = sqlx::query(APPLY_ENDS)
            .bind(ends.iter().map(|end| end.order_id).collect::<Vec<Uuid>>())
            .bind(ends.iter().map(|end| end.status.as_str()).collect::<Vec<_>>())
            .bind(ends.iter().map(|end| end.reason.as_deref()).collect::<Vec<_>>())
            .bind(ends.iter().map(|end| i32::try_from(end.saga_version).unwrap_or(i32::MAX)).collect::<Vec<_>>())
            .execute(&self.pool)
            .await?
            .rows_affected();
        metrics::END_EVENTS.with_label_values(&["applied"]).inc_by(changed);
        metrics::END_EVENTS.with_label_values(&["ignored"]).inc_by((batch.len() as u64).saturating_sub(changed));
        if changed > 0 {
            self.feed.nudge();
        }
        Ok(Vec::new())
    }
}

/// The topic and the value must say the same, and what is stored must fit its column.
fn check(topic: &str, ended: OrderEnded) -> Result<OrderEnded, Poison> {
    let expected = END_TOPICS.iter().find_map(|(end, status)| (end.name == topic).then_some(*status));
    if expected != Some(ended.status) {
        return Err(Poison::new("status-mismatch", format!("the status is {} on the topic {topic}", ended.status)));
    }
    if ended.saga_version == 0 || i32::try_from(ended.saga_version).is_err() {
        return Err(Poison::new("invalid-version", format!("sagaVersion is {}", ended.saga_version)));
    }
    if ended.reason.as_deref().is_some_and(|reason| reason.contains('\0')) {
        return Err(Poison::new("invalid-text", "the reason has U+0000"));
    }
    Ok(ended)
}

/// One event an order, that of the greatest version, in the order of the ids: an UPDATE joins each row once.
fn last_of_each<'a>(ends: impl Iterator<Item = &'a OrderEnded>) -> Vec<&'a OrderEnded> {
    let mut last: HashMap<Uuid, &OrderEnded> = HashMap::new();
    for end in ends {
        let known = last.entry(end.order_id).or_insert(end);
        if end.saga_version > known.saga_version {
            *known = end;
        }
    }
    let mut ends: Vec<_> = last.into_values().collect();
    ends.sort_by_key(|end| end.order_id);
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(order: u128, status: OrderStatus, saga_version: u32) -> OrderEnded {
        let order_id = Uuid::from_u128(order);
        OrderEnded { order_id, status, saga_version, reason: None, customer_id: "c".into() }
    }

    #[test]
    fn of_several_events_for_an_order_the_greatest_version_counts() {
        use OrderStatus::{Cancelled, Completed, Parked};
        let batch = [ended(2, Parked, 4), ended(1, Completed, 5), ended(2, Cancelled, 9), ended(2, Parked, 7)];
        let kept: Vec<_> = last_of_each(batch.iter()).iter().map(|e| (e.order_id.as_u128(), e.status)).collect();
        assert_eq!(kept, [(1, Completed), (2, Cancelled)]);
    }

    #[test]
    fn a_status_on_the_wrong_topic_is_poison() {
        assert!(check("order.parked", ended(1, OrderStatus::Parked, 3)).is_ok());
        let poison = check("order.completed", ended(1, OrderStatus::Parked, 3)).expect_err("the topic says otherwise");
        assert_eq!(poison.reason, "status-mismatch");
        assert_eq!(
            check("order.parked", ended(1, OrderStatus::Parked, 0)).expect_err("no version").reason,
            "invalid-version"
        );
        assert!(check("order.parked", ended(1, OrderStatus::Parked, u32::MAX)).is_err());
    }
}
