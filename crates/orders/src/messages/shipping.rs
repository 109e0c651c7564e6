use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::InventoryLine;
use crate::CountryCode;

/// Command: book one shipment. Answered by [`ShippingScheduled`] or [`ShippingFailed`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShippingRequested {
    /// The order.
    pub order_id: Uuid,
    /// Who receives it.
    pub name: String,
    /// Street and number.
    pub street: String,
    /// Town.
    pub city: String,
    /// Postal code, as the country writes it.
    pub postal_code: String,
    /// Country.
    pub country: CountryCode,
    /// What is in the parcel.
    #[schemars(length(min = 1))]
    pub items: Vec<InventoryLine>,
}

/// Reply: the shipment is booked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShippingScheduled {
    /// The order.
    pub order_id: Uuid,
    /// The shipment, as the shipping service knows it.
    pub shipment_id: Uuid,
    /// Who carries it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carrier: Option<String>,
    /// The carrier's code, by which the customer follows the parcel.
    pub tracking_code: String,
}

/// Reply: the address is not served, and nothing was booked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShippingFailed {
    /// The order.
    pub order_id: Uuid,
    /// Why, for a person to read.
    pub reason: String,
}

/// Undo: cancel the order's shipment, if any, and refuse a booking that comes later.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShippingCancelRequested {
    /// The order.
    pub order_id: Uuid,
}

/// Reply to the undo: nothing is booked for the order, and nothing will be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShippingCancelled {
    /// The order.
    pub order_id: Uuid,
}
