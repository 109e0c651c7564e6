//! The body of `POST /api/orders` as its OpenAPI document describes it. [`crate::validation`] checks it.
#![expect(dead_code, reason = "nothing reads it: it gives the document its shape")]

use utoipa::ToSchema;

/// An order to place. Fields that are not known are ignored.
#[derive(ToSchema)]
#[schema(as = NewOrder, example = json!({
    "customerId": "c-1001", "currency": "EUR",
    "items": [{ "sku": "SKU-001", "quantity": 2, "unitPrice": 1999 }],
    "payment": { "token": "tok_ok" },
    "shipping": { "name": "Ada", "street": "1 Main St", "city": "Paris", "postalCode": "75001", "country": "FR" }
}))]
#[serde(rename_all = "camelCase")]
pub struct NewOrderBody {
    /// Who orders, as the shop knows them. No control characters.
    #[schema(min_length = 1, max_length = 128)]
    pub customer_id: String,
    /// ISO 4217 code of a currency with minor units.
    #[schema(pattern = "^[A-Z]{3}$")]
    pub currency: String,
    /// What is ordered. The total must fit a 64-bit signed integer of minor units.
    #[schema(min_items = 1, max_items = 100)]
    pub items: Vec<NewOrderItem>,
    pub payment: NewOrderPayment,
    pub shipping: NewOrderAddress,
}

/// A line of an order to place.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NewOrderItem {
    /// Stock keeping unit. No control characters.
    #[schema(min_length = 1, max_length = 64)]
    pub sku: String,
    #[schema(minimum = 1, maximum = 1000)]
    pub quantity: u32,
    /// Price of one, in minor units.
    #[schema(minimum = 1)]
    pub unit_price: i64,
}

/// How an order is paid.
#[derive(ToSchema)]
pub struct NewOrderPayment {
    /// The payment provider's token. No control characters.
    #[schema(min_length = 1, max_length = 256)]
    pub token: String,
}

/// Where an order goes. No control characters anywhere.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NewOrderAddress {
    #[schema(min_length = 1, max_length = 256)]
    pub name: String,
    #[schema(min_length = 1, max_length = 256)]
    pub street: String,
    #[schema(min_length = 1, max_length = 256)]
    pub city: String,
    #[schema(min_length = 1, max_length = 256)]
    pub postal_code: String,
    /// ISO 3166-1 alpha-2 code.
    #[schema(pattern = "^[A-Z]{2}$")]
    pub country: String,
}
