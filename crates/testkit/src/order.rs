//! Orders to place.

use serde_json::{Value, json};

/// The body of `POST /api/orders` for one line that goes through.
pub fn order() -> Value {
    json!({
        "customerId": "c-1001",
        "currency": "EUR",
        "items": [{ "sku": "SKU-001", "quantity": 2, "unitPrice": 1999 }],
        "payment": { "token": "tok_ok" },
        "shipping": { "name": "Ada", "street": "1 Main St", "city": "Paris", "postalCode": "75001", "country": "FR" }
    })
}

/// [`order`] with `value` at the JSON Pointer `pointer`.
///
/// # Panics
/// When the order has nothing there.
pub fn order_with(pointer: &str, value: impl Into<Value>) -> Value {
    let mut order = order();
    *order.pointer_mut(pointer).unwrap_or_else(|| panic!("an order has no {pointer}")) = value.into();
    order
}
