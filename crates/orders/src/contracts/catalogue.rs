use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::Value;

use super::examples;
use crate::messages::{
    InventoryRejected, InventoryReleaseRequested, InventoryReleased, InventoryRequested, InventoryReserved,
    OrderCreated, OrderEnded, PaymentFailed, PaymentRefundRequested, PaymentRefunded, PaymentRequested,
    PaymentSuccessful, ShippingCancelRequested, ShippingCancelled, ShippingFailed, ShippingRequested,
    ShippingScheduled,
};
use crate::topics::{
    INVENTORY_REJECTED, INVENTORY_RELEASE_REQUESTED, INVENTORY_RELEASED, INVENTORY_REQUESTED, INVENTORY_RESERVED,
    ORDER_CANCELLED, ORDER_COMPLETED, ORDER_CREATED, ORDER_PARKED, PAYMENT_FAILED, PAYMENT_REFUND_REQUESTED,
    PAYMENT_REFUNDED, PAYMENT_REQUESTED, PAYMENT_SUCCESSFUL, SHIPPING_CANCEL_REQUESTED, SHIPPING_CANCELLED,
    SHIPPING_FAILED, SHIPPING_REQUESTED, SHIPPING_SCHEDULED,
};
use crate::{OrderStatus, Topic};

/// What a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Starts a saga.
    Trigger,
    /// Asks a participant to take a step; answered on one of `replies`.
    Command { step: &'static str, replies: &'static [Topic] },
    /// Asks a participant to undo a step; answered on `reply`, and never refused.
    Undo { step: &'static str, reply: Topic },
    /// Answers a command.
    Reply { step: &'static str },
    /// Answers an undo.
    Undone { step: &'static str },
    /// Tells how a saga ended, or that it rests.
    End { status: OrderStatus },
}

impl Role {
    /// The saga's step that the message is about.
    pub fn step(self) -> Option<&'static str> {
        match self {
            Role::Command { step, .. } | Role::Undo { step, .. } | Role::Reply { step } | Role::Undone { step } => {
                Some(step)
            }
            Role::Trigger | Role::End { .. } => None,
        }
    }
}

/// A topic with everything that is said about it.
#[derive(Clone, Copy, Debug)]
pub struct Contract {
    /// The topic.
    pub topic: Topic,
    /// Name of the message on it.
    pub message: &'static str,
    /// What the message is for.
    pub role: Role,
    /// The service that writes it.
    pub sender: &'static str,
    /// The services that read it.
    pub receivers: &'static [&'static str],
    pub(super) schema: fn(SchemaGenerator) -> Schema,
    pub(super) example: fn() -> Value,
}

fn schema_of<T: JsonSchema>(generator: SchemaGenerator) -> Schema {
    generator.into_root_schema_for::<T>()
}

const ORCHESTRATOR: &str = "orchestrator";
const PAYMENT: &str = "payment-svc";
const INVENTORY: &str = "inventory-svc";
const SHIPPING: &str = "shipping-svc";
const NOTIFICATION: &str = "notification-svc";
const ORDER_API: &str = "order-api";

macro_rules! contract {
    ($topic:ident, $message:ident, $role:expr, $sender:expr => $receivers:expr, $example:ident) => {
        Contract {
            topic: $topic,
            message: stringify!($message),
            role: $role,
            sender: $sender,
            receivers: $receivers,
            schema: schema_of::<$message>,
            example: examples::$example,
        }
    };
}

const PAYMENT_COMMAND: Role = Role::Command { step: "payment", replies: &[PAYMENT_SUCCESSFUL, PAYMENT_FAILED] };
const PAYMENT_REPLY: Role = Role::Reply { step: "payment" };
const PAYMENT_UNDO: Role = Role::Undo { step: "payment", reply: PAYMENT_REFUNDED };
const PAYMENT_UNDONE: Role = Role::Undone { step: "payment" };
const INVENTORY_COMMAND: Role = Role::Command { step: "inventory", replies: &[INVENTORY_RESERVED, INVENTORY_REJECTED] };
const INVENTORY_REPLY: Role = Role::Reply { step: "inventory" };
const INVENTORY_UNDO: Role = Role::Undo { step: "inventory", reply: INVENTORY_RELEASED };
const INVENTORY_UNDONE: Role = Role::Undone { step: "inventory" };
const SHIPPING_COMMAND: Role = Role::Command { step: "shipping", replies: &[SHIPPING_SCHEDULED, SHIPPING_FAILED] };
const SHIPPING_REPLY: Role = Role::Reply { step: "shipping" };
const SHIPPING_UNDO: Role = Role::Undo { step: "shipping", reply: SHIPPING_CANCELLED };
const SHIPPING_UNDONE: Role = Role::Undone { step: "shipping" };
const COMPLETED: Role = Role::End { status: OrderStatus::Completed };
const CANCELLED: Role = Role::End { status: OrderStatus::Cancelled };
const PARKED: Role = Role::End { status: OrderStatus::Parked };

/// Every topic's contract, in the order of [`crate::topics::ALL`].
pub const CATALOGUE: &[Contract] = &[
    contract!(ORDER_CREATED, OrderCreated, Role::Trigger, ORDER_API => &[ORCHESTRATOR], order_created),
    contract!(PAYMENT_REQUESTED, PaymentRequested, PAYMENT_COMMAND, ORCHESTRATOR => &[PAYMENT], payment_requested),
    contract!(PAYMENT_SUCCESSFUL, PaymentSuccessful, PAYMENT_REPLY, PAYMENT => &[ORCHESTRATOR], payment_successful),
    contract!(PAYMENT_FAILED, PaymentFailed, PAYMENT_REPLY, PAYMENT => &[ORCHESTRATOR], payment_failed),
    contract!(PAYMENT_REFUND_REQUESTED, PaymentRefundRequested, PAYMENT_UNDO, ORCHESTRATOR => &[PAYMENT], order_only),
    contract!(PAYMENT_REFUNDED, PaymentRefunded, PAYMENT_UNDONE, PAYMENT => &[ORCHESTRATOR], payment_refunded),
    contract!(INVENTORY_REQUESTED, InventoryRequested, INVENTORY_COMMAND, ORCHESTRATOR => &[INVENTORY], inventory_requested),
    contract!(INVENTORY_RESERVED, InventoryReserved, INVENTORY_REPLY, INVENTORY => &[ORCHESTRATOR], inventory_reserved),
    contract!(INVENTORY_REJECTED, InventoryRejected, INVENTORY_REPLY, INVENTORY => &[ORCHESTRATOR], inventory_rejected),
    contract!(INVENTORY_RELEASE_REQUESTED, InventoryReleaseRequested, INVENTORY_UNDO, ORCHESTRATOR => &[INVENTORY], order_only),
    contract!(INVENTORY_RELEASED, InventoryReleased, INVENTORY_UNDONE, INVENTORY => &[ORCHESTRATOR], order_only),
    contract!(SHIPPING_REQUESTED, ShippingRequested, SHIPPING_COMMAND, ORCHESTRATOR => &[SHIPPING], shipping_requested),
    contract!(SHIPPING_SCHEDULED, ShippingScheduled, SHIPPING_REPLY, SHIPPING => &[ORCHESTRATOR], shipping_scheduled),
    contract!(SHIPPING_FAILED, ShippingFailed, SHIPPING_REPLY, SHIPPING => &[ORCHESTRATOR], shipping_failed),
    contract!(SHIPPING_CANCEL_REQUESTED, ShippingCancelRequested, SHIPPING_UNDO, ORCHESTRATOR => &[SHIPPING], order_only),
    contract!(SHIPPING_CANCELLED, ShippingCancelled, SHIPPING_UNDONE, SHIPPING => &[ORCHESTRATOR], order_only),
    contract!(ORDER_COMPLETED, OrderEnded, COMPLETED, ORCHESTRATOR => &[ORDER_API, INVENTORY, NOTIFICATION], order_completed),
    contract!(ORDER_CANCELLED, OrderEnded, CANCELLED, ORCHESTRATOR => &[ORDER_API, NOTIFICATION], order_cancelled),
    contract!(ORDER_PARKED, OrderEnded, PARKED, ORCHESTRATOR => &[ORDER_API], order_parked),
];
