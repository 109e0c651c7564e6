//! shipping-svc on a real database and a real broker.

mod commands;
mod plans;
mod process;

use messaging::Outgoing;
use orders::topics::{SHIPPING_CANCEL_REQUESTED, SHIPPING_REQUESTED};
use serde_json::json;
use shipping_svc::commands::ShippingCommands;
use testkit::{Env, participant};
use uuid::Uuid;

const TABLES: &[&str] = &["shipments"];
const REFUSED: &str = "shipment refused: it was cancelled before it was booked";

/// A database of the test's own, and the handler on it with the rights of the service.
async fn handler(env: &Env) -> ShippingCommands {
    env.create_database("shipping").await;
    ShippingCommands::new(env.role_pool("shipping"))
}

fn schedule(order: Uuid, country: &str) -> Outgoing {
    let data = json!({
        "orderId": order, "name": "Ada", "street": "1 Main St", "city": "Paris", "postalCode": "75001",
        "country": country, "items": [{ "sku": "SKU-001", "quantity": 2, "unitPrice": 1999 }],
    });
    let topic = SHIPPING_REQUESTED.channel();
    participant::command(topic, saga::ids::command_id, "shipping", order, &data)
}

fn cancel(order: Uuid) -> Outgoing {
    let topic = SHIPPING_CANCEL_REQUESTED.channel();
    participant::command(topic, saga::ids::undo_id, "shipping", order, &json!({ "orderId": order }))
}

fn scheduled() -> (String, Option<String>) {
    ("shipping.scheduled".to_owned(), None)
}

fn failed(reason: &str) -> (String, Option<String>) {
    ("shipping.failed".to_owned(), Some(reason.to_owned()))
}

fn cancelled() -> (String, Option<String>) {
    ("shipping.cancelled".to_owned(), None)
}

async fn state(env: &Env, order: Uuid) -> String {
    let sql = "SELECT state FROM shipments WHERE order_id = $1";
    sqlx::query_scalar(sql).bind(order).fetch_one(&env.pool("shipping")).await.expect("a shipment")
}

#[tokio::test]
async fn every_statement_prepares_with_the_rights_of_the_service() {
    let env = Env::bare("shipping");
    env.create_database("shipping").await;
    testkit::assert_statements_prepare(&env.role_pool("shipping"), shipping_svc::STATEMENTS).await;
}

#[test]
fn the_committed_openapi_document_is_that_of_the_routes() {
    testkit::assert_openapi_is_committed("shipping-svc");
}
