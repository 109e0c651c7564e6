//! inventory-svc on a real database and a real broker.

mod adjust;
mod commands;
mod plans;
mod process;

use inventory_svc::commands::InventoryCommands;
use messaging::Outgoing;
use orders::topics::{INVENTORY_RELEASE_REQUESTED, INVENTORY_REQUESTED, ORDER_COMPLETED};
use serde_json::{Value, json};
use sqlx::PgPool;
use testkit::{Env, participant};
use uuid::Uuid;

const TABLES: &[&str] = &["stock", "adjustments", "reservations"];
const REFUSED: &str = "reservation refused: it was released before it was made";

/// A database of the test's own, and the handler on it with the rights of the service.
async fn handler(env: &Env) -> InventoryCommands {
    env.create_database("inventory").await;
    InventoryCommands::new(env.role_pool("inventory"))
}

fn reserve(order: Uuid, lines: &[(&str, u32)]) -> Outgoing {
    let items: Vec<Value> =
        lines.iter().map(|(sku, quantity)| json!({ "sku": sku, "quantity": quantity, "unitPrice": 5 })).collect();
    let topic = INVENTORY_REQUESTED.channel();
    participant::command(topic, saga::ids::command_id, "inventory", order, &json!({ "orderId": order, "items": items }))
}

fn release(order: Uuid) -> Outgoing {
    let topic = INVENTORY_RELEASE_REQUESTED.channel();
    participant::command(topic, saga::ids::undo_id, "inventory", order, &json!({ "orderId": order }))
}

fn completed(order: Uuid) -> Outgoing {
    let data = json!({ "orderId": order, "status": "COMPLETED", "sagaVersion": 7, "customerId": "c-1" });
    let topic = ORDER_COMPLETED.channel();
    let id = |order, _: &str| saga::ids::end_event_id(order, "order.completed", 7);
    Outgoing { step: None, ..participant::command(topic, id, "", order, &data) }
}

fn reserved() -> (String, Option<String>) {
    ("inventory.reserved".to_owned(), None)
}

fn rejected(reason: &str) -> (String, Option<String>) {
    ("inventory.rejected".to_owned(), Some(reason.to_owned()))
}

fn released() -> (String, Option<String>) {
    ("inventory.released".to_owned(), None)
}

/// Available, reserved and shipped pieces of a unit.
async fn heaps(pool: &PgPool, sku: &str) -> (i64, i64, i64) {
    let sql = "SELECT available, reserved, shipped FROM stock WHERE sku = $1";
    sqlx::query_as(sql).bind(sku).fetch_one(pool).await.expect("a unit")
}

/// Units whose pieces are not where they should be: more or fewer than there ever were, or other than reservations say.
async fn astray(pool: &PgPool) -> Vec<String> {
    let sql = "
        WITH held AS (
            SELECT line.sku, sum(line.quantity) FILTER (WHERE state = 'RESERVED') AS reserved,
                   sum(line.quantity) FILTER (WHERE state = 'SHIPPED') AS shipped
            FROM reservations, jsonb_to_recordset(items) AS line (sku text, quantity bigint) GROUP BY line.sku
        )
        SELECT stock.sku FROM stock LEFT JOIN held USING (sku)
        WHERE stock.available + stock.reserved + stock.shipped
              <> stock.initial + (SELECT COALESCE(sum(delta), 0) FROM adjustments a WHERE a.sku = stock.sku)
           OR stock.reserved <> COALESCE(held.reserved, 0) OR stock.shipped <> COALESCE(held.shipped, 0)";
    sqlx::query_scalar(sql).fetch_all(pool).await.expect("readable tables")
}

/// Leaves `pieces` of `sku`.
async fn leave(pool: &PgPool, sku: &str, pieces: i64) {
    let sql = "UPDATE stock SET initial = $2, available = $2 WHERE sku = $1";
    sqlx::query(sql).bind(sku).bind(pieces).execute(pool).await.expect("a unit");
}

#[tokio::test]
async fn every_statement_prepares_with_the_rights_of_the_service() {
    let env = Env::bare("inventory");
    env.create_database("inventory").await;
    testkit::assert_statements_prepare(&env.role_pool("inventory"), inventory_svc::STATEMENTS).await;
}

#[test]
fn the_committed_openapi_document_is_that_of_the_routes() {
    testkit::assert_openapi_is_committed("inventory-svc");
}
