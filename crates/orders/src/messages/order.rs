use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{CountryCode, Currency, OrderStatus, Sku};

/// An order was accepted and is durable. Value of `order.created`; starts the order's saga.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderCreated {
    /// The order; also the id of its saga.
    pub order_id: Uuid,
    /// Who ordered, as the shop knows them.
    #[schemars(length(min = 1, max = 128))]
    pub customer_id: String,
    /// Currency of every amount in the order.
    pub currency: Currency,
    /// Sum of quantity × unit price over the lines, in minor units.
    #[schemars(range(min = 1))]
    pub total: i64,
    /// What was ordered; at least one line.
    #[schemars(length(min = 1, max = 100))]
    pub items: Vec<OrderLine>,
    /// How it is paid.
    pub payment: PaymentMethod,
    /// Where it goes.
    pub shipping: Address,
    /// When the order was accepted, RFC 3339 in UTC.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub created_at: DateTime<Utc>,
}

/// One line of an order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderLine {
    /// What.
    pub sku: Sku,
    /// How many.
    #[schemars(range(min = 1, max = 1000))]
    pub quantity: u32,
    /// Price of one, in minor units.
    #[schemars(range(min = 1))]
    pub unit_price: i64,
}

/// How an order is paid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PaymentMethod {
    /// The payment provider's token for the customer's means of payment.
    #[schemars(length(min = 1, max = 256))]
    pub token: String,
}

/// Where an order goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Address {
    /// Who receives it.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// Street and number.
    #[schemars(length(min = 1, max = 256))]
    pub street: String,
    /// Town.
    #[schemars(length(min = 1, max = 256))]
    pub city: String,
    /// Postal code, as the country writes it.
    #[schemars(length(min = 1, max = 256))]
    pub postal_code: String,
    /// Country.
    pub country: CountryCode,
}

/// The order's saga ended or came to rest. Value of `order.completed`, `order.cancelled` and `order.parked`.
///
/// A parked saga may go on and end later, so a reader applies an event only when its `sagaVersion` is greater than the
/// last one it applied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderEnded {
    /// The order.
    pub order_id: Uuid,
    /// `COMPLETED`, `CANCELLED` or `PARKED`, as the topic says.
    pub status: OrderStatus,
    /// Version of the saga that this event reports; grows with every step of its timeline.
    #[schemars(range(min = 1))]
    pub saga_version: u32,
    /// Why it was cancelled or parked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whose order it is.
    pub customer_id: String,
}
