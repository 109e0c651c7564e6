//! The topics of the order application and the CloudEvents type that each carries.

/// A Kafka topic and the only message type that may be on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Topic {
    /// The topic's name, without any prefix that an installation puts before it.
    pub name: &'static str,
    /// `ce_type` of every message on the topic; the last part is the version of the schema.
    pub event_type: &'static str,
}

impl Topic {
    /// The topic of this name.
    pub fn find(name: &str) -> Option<Topic> {
        ALL.iter().copied().find(|topic| topic.name == name)
    }

    /// Name and type.
    pub const fn channel(self) -> (&'static str, &'static str) {
        (self.name, self.event_type)
    }
}

macro_rules! topics {
    ($($(#[$doc:meta])* $constant:ident = $name:literal;)+) => {
        $($(#[$doc])* pub const $constant: Topic =
            Topic { name: $name, event_type: concat!("com.chaossymphony.", $name, ".v1") };)+

        /// Every topic, in the order in which a saga meets them.
        pub const ALL: &[Topic] = &[$($constant),+];
    };
}

topics! {
    /// An order was accepted and is durable: starts its saga.
    ORDER_CREATED = "order.created";
    /// Asks to charge the order's total.
    PAYMENT_REQUESTED = "payment.requested";
    /// The total was charged.
    PAYMENT_SUCCESSFUL = "payment.successful";
    /// The charge was refused; nothing was charged.
    PAYMENT_FAILED = "payment.failed";
    /// Asks to give back whatever was charged, and to charge nothing from now on.
    PAYMENT_REFUND_REQUESTED = "payment.refund.requested";
    /// Nothing is charged any more.
    PAYMENT_REFUNDED = "payment.refunded";
    /// Asks to set stock aside for every line.
    INVENTORY_REQUESTED = "inventory.requested";
    /// Every line is set aside.
    INVENTORY_RESERVED = "inventory.reserved";
    /// At least one line cannot be served; nothing was set aside.
    INVENTORY_REJECTED = "inventory.rejected";
    /// Asks to give back whatever was set aside, and to set nothing aside from now on.
    INVENTORY_RELEASE_REQUESTED = "inventory.release.requested";
    /// Nothing is set aside any more.
    INVENTORY_RELEASED = "inventory.released";
    /// Asks to book a shipment.
    SHIPPING_REQUESTED = "shipping.requested";
    /// The shipment is booked.
    SHIPPING_SCHEDULED = "shipping.scheduled";
    /// The address is not served; nothing was booked.
    SHIPPING_FAILED = "shipping.failed";
    /// Asks to cancel whatever was booked, and to book nothing from now on.
    SHIPPING_CANCEL_REQUESTED = "shipping.cancel.requested";
    /// Nothing is booked any more.
    SHIPPING_CANCELLED = "shipping.cancelled";
    /// The saga ended: every step took effect.
    ORDER_COMPLETED = "order.completed";
    /// The saga ended: the net effect of every step is zero.
    ORDER_CANCELLED = "order.cancelled";
    /// The saga rests until an operator acts.
    ORDER_PARKED = "order.parked";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_names_its_topic_and_version() {
        assert_eq!(PAYMENT_REFUND_REQUESTED.event_type, "com.chaossymphony.payment.refund.requested.v1");
        assert_eq!(Topic::find("order.parked"), Some(ORDER_PARKED));
        assert_eq!(Topic::find("order.lost"), None);
    }
}
