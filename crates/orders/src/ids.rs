//! Deterministic message ids: what is published again is the same message.

use uuid::Uuid;

use crate::topics::ORDER_CREATED;

/// Id of an order's `order.created` message and of its outbox row: UUIDv5 of the order id and the topic's name.
/// It has no attempt number, so the row that the reconciler inserts again is the same message for every consumer.
pub fn order_created_id(order_id: Uuid) -> Uuid {
    Uuid::new_v5(&order_id, ORDER_CREATED.name.as_bytes())
}
