use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Sku;

/// Command: set stock aside for every line, or for none. Answered by [`InventoryReserved`] or [`InventoryRejected`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InventoryRequested {
    /// The order.
    pub order_id: Uuid,
    /// What to set aside. A unit may be on several lines: their quantities add up.
    #[schemars(length(min = 1))]
    pub items: Vec<InventoryLine>,
}

/// One line to set aside. The command carries the order's lines as they are, so other fields may be present.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InventoryLine {
    /// What.
    pub sku: Sku,
    /// How many.
    #[schemars(range(min = 1))]
    pub quantity: u32,
}

/// Reply: every line is set aside.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InventoryReserved {
    /// The order.
    pub order_id: Uuid,
    /// The reservation, as the inventory service knows it.
    pub reservation_id: Uuid,
}

/// Reply: at least one line cannot be served, and nothing was set aside.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InventoryRejected {
    /// The order.
    pub order_id: Uuid,
    /// Why, for a person to read.
    pub reason: String,
}

/// Undo: give back what was set aside for the order, if anything, and refuse a reservation that comes later.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InventoryReleaseRequested {
    /// The order.
    pub order_id: Uuid,
}

/// Reply to the undo: nothing is set aside for the order, and nothing will be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InventoryReleased {
    /// The order.
    pub order_id: Uuid,
}
