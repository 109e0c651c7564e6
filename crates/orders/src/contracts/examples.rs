//! One message of every kind, made from the types, so an example that does not fit its schema cannot be written.

use chrono::DateTime;
use serde::Serialize;
use serde_json::Value;
use uuid::{Uuid, uuid};

use crate::messages::{
    Address, InventoryLine, InventoryRejected, InventoryReleased, InventoryRequested, InventoryReserved, OrderCreated,
    OrderEnded, OrderLine, PaymentFailed, PaymentMethod, PaymentRefunded, PaymentRequested, PaymentSuccessful,
    ShippingFailed, ShippingRequested, ShippingScheduled,
};
use crate::{CountryCode, Currency, OrderStatus, Sku};

pub(super) const ORDER: Uuid = uuid!("019aa5b2-8c00-7c3e-9d1f-4a5b6c7d8e9f");
/// When the example's order was accepted.
pub(super) const TIME: &str = "2026-11-21T09:30:00.125Z";
const EFFECT: Uuid = uuid!("5f0c2a52-3f0a-5d7e-8a53-7b1f2f6f0c11");

fn json(message: impl Serialize) -> Value {
    serde_json::to_value(message).expect("a message has string keys only")
}

fn currency() -> Currency {
    Currency::try_from("EUR").expect("an ISO 4217 code")
}

fn country() -> CountryCode {
    CountryCode::try_from("FR").expect("an ISO 3166 code")
}

fn sku() -> Sku {
    Sku::try_from("SKU-001").expect("short text")
}

fn line() -> InventoryLine {
    InventoryLine { sku: sku(), quantity: 2 }
}

pub(super) fn order_created() -> Value {
    json(OrderCreated {
        order_id: ORDER,
        customer_id: "c-1001".into(),
        currency: currency(),
        total: 3998,
        items: vec![OrderLine { sku: sku(), quantity: 2, unit_price: 1999 }],
        payment: PaymentMethod { token: "tok_ok".into() },
        shipping: Address {
            name: "Ada".into(),
            street: "1 Main St".into(),
            city: "Paris".into(),
            postal_code: "75001".into(),
            country: country(),
        },
        created_at: DateTime::parse_from_rfc3339(TIME).expect("RFC 3339").to_utc(),
    })
}

pub(super) fn payment_requested() -> Value {
    json(PaymentRequested { order_id: ORDER, amount: 3998, currency: currency(), token: "tok_ok".into() })
}

pub(super) fn payment_successful() -> Value {
    json(PaymentSuccessful { order_id: ORDER, payment_id: EFFECT, amount: 3998, currency: currency() })
}

pub(super) fn payment_failed() -> Value {
    json(PaymentFailed { order_id: ORDER, reason: "the card was declined".into() })
}

pub(super) fn payment_refunded() -> Value {
    json(PaymentRefunded { order_id: ORDER, refunded: 3998, currency: Some(currency()) })
}

pub(super) fn inventory_requested() -> Value {
    json(InventoryRequested { order_id: ORDER, items: vec![line()] })
}

pub(super) fn inventory_reserved() -> Value {
    json(InventoryReserved { order_id: ORDER, reservation_id: EFFECT })
}

pub(super) fn inventory_rejected() -> Value {
    json(InventoryRejected { order_id: ORDER, reason: "SKU-001: 1 available, 2 asked for".into() })
}

pub(super) fn shipping_requested() -> Value {
    json(ShippingRequested {
        order_id: ORDER,
        name: "Ada".into(),
        street: "1 Main St".into(),
        city: "Paris".into(),
        postal_code: "75001".into(),
        country: country(),
        items: vec![line()],
    })
}

pub(super) fn shipping_scheduled() -> Value {
    json(ShippingScheduled {
        order_id: ORDER,
        shipment_id: EFFECT,
        carrier: Some("Chaos Parcel".into()),
        tracking_code: "CP-5F0C2A52".into(),
    })
}

pub(super) fn shipping_failed() -> Value {
    json(ShippingFailed { order_id: ORDER, reason: "AQ is not served".into() })
}

/// Undo commands, and the answers to them that say no more than whose they are.
pub(super) fn order_only() -> Value {
    json(InventoryReleased { order_id: ORDER })
}

fn ended(status: OrderStatus, saga_version: u32, reason: Option<&str>) -> Value {
    let reason = reason.map(str::to_owned);
    json(OrderEnded { order_id: ORDER, status, saga_version, reason, customer_id: "c-1001".into() })
}

pub(super) fn order_completed() -> Value {
    ended(OrderStatus::Completed, 4, None)
}

pub(super) fn order_cancelled() -> Value {
    ended(OrderStatus::Cancelled, 2, Some("the card was declined"))
}

pub(super) fn order_parked() -> Value {
    ended(OrderStatus::Parked, 23, Some("inventory: the undo was not answered"))
}
