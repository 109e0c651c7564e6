use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Currency;

/// Command: charge the order's total once. Answered by [`PaymentSuccessful`] or [`PaymentFailed`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PaymentRequested {
    /// The order.
    pub order_id: Uuid,
    /// What to charge, in minor units.
    #[schemars(range(min = 1))]
    pub amount: i64,
    /// Currency of the amount.
    pub currency: Currency,
    /// The payment provider's token.
    pub token: String,
}

/// Reply: the amount was charged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PaymentSuccessful {
    /// The order.
    pub order_id: Uuid,
    /// The payment, as the payment service knows it.
    pub payment_id: Uuid,
    /// What was charged, in minor units.
    #[schemars(range(min = 1))]
    pub amount: i64,
    /// Currency of the amount.
    pub currency: Currency,
}

/// Reply: the charge was refused, and nothing was charged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PaymentFailed {
    /// The order.
    pub order_id: Uuid,
    /// Why, for a person to read.
    pub reason: String,
}

/// Undo: give back what was charged for the order, if anything, and refuse a charge that comes later.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PaymentRefundRequested {
    /// The order.
    pub order_id: Uuid,
}

/// Reply to the undo: nothing is charged for the order, and nothing will be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PaymentRefunded {
    /// The order.
    pub order_id: Uuid,
    /// What was given back, in minor units; 0 when nothing had been charged.
    #[schemars(range(min = 0))]
    pub refunded: i64,
    /// Currency of the amount; absent when nothing had been charged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<Currency>,
}
