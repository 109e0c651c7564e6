//! The JSON value of every topic.
//!
//! Readers are tolerant: unknown fields are ignored, so a later version may add fields without breaking anyone.
//! Amounts are whole minor units of their currency (cents of a euro).

mod inventory;
mod order;
mod payment;
mod shipping;

pub use inventory::{
    InventoryLine, InventoryRejected, InventoryReleaseRequested, InventoryReleased, InventoryRequested,
    InventoryReserved,
};
pub use order::{Address, OrderCreated, OrderEnded, OrderLine, PaymentMethod};
pub use payment::{PaymentFailed, PaymentRefundRequested, PaymentRefunded, PaymentRequested, PaymentSuccessful};
pub use shipping::{ShippingCancelRequested, ShippingCancelled, ShippingFailed, ShippingRequested, ShippingScheduled};
