//! Who reads what.

use crate::topics::*;

/// Each consumer group of the order application, which has its service's name, and the topics that it reads. What
/// reads dead letters (`*.dlq`) is none of them.
pub const READERS: &[(&str, &[Topic])] = &[
    (
        "orchestrator",
        &[
            ORDER_CREATED,
            PAYMENT_SUCCESSFUL,
            PAYMENT_FAILED,
            PAYMENT_REFUNDED,
            INVENTORY_RESERVED,
            INVENTORY_REJECTED,
            INVENTORY_RELEASED,
            SHIPPING_SCHEDULED,
            SHIPPING_FAILED,
            SHIPPING_CANCELLED,
        ],
    ),
    ("payment-svc", &[PAYMENT_REQUESTED, PAYMENT_REFUND_REQUESTED]),
    ("inventory-svc", &[INVENTORY_REQUESTED, INVENTORY_RELEASE_REQUESTED, ORDER_COMPLETED]),
    ("shipping-svc", &[SHIPPING_REQUESTED, SHIPPING_CANCEL_REQUESTED]),
    ("notification-svc", &[ORDER_COMPLETED, ORDER_CANCELLED]),
    ("order-api", &[ORDER_COMPLETED, ORDER_CANCELLED, ORDER_PARKED]),
];

/// The groups that read `topic`, a name without prefix.
pub fn readers(topic: &str) -> impl Iterator<Item = &'static str> {
    READERS.iter().filter(move |(_, topics)| topics.iter().any(|read| read.name == topic)).map(|(group, _)| *group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_has_a_reader() {
        for topic in ALL {
            assert!(readers(topic.name).next().is_some(), "nobody reads {}", topic.name);
        }
        assert_eq!(readers("order.completed").collect::<Vec<_>>(), ["inventory-svc", "notification-svc", "order-api"]);
    }
}
