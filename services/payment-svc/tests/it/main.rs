//! payment-svc on a real database and a real broker.

mod commands;
mod ledger;
mod plans;
mod process;
mod slow;

use std::time::Duration;

use messaging::Outgoing;
use orders::topics::{PAYMENT_REFUND_REQUESTED, PAYMENT_REQUESTED};
use payment_svc::commands::PaymentCommands;
use serde_json::{Value, json};
use sqlx::PgPool;
use testkit::{Env, participant};
use uuid::Uuid;

const TABLES: &[&str] = &["payments", "ledger_entries", "slow_charges"];

/// A database of the test's own, and the handler on it with the rights of the service.
async fn handler(env: &Env) -> PaymentCommands {
    env.create_database("payment").await;
    PaymentCommands::new(env.role_pool("payment"), Duration::from_secs(90))
}

fn charge(order: Uuid, token: &str) -> Outgoing {
    let data = json!({ "orderId": order, "amount": 3998, "currency": "EUR", "token": token });
    let topic = PAYMENT_REQUESTED.channel();
    participant::command(topic, saga::ids::command_id, "payment", order, &data)
}

fn refund(order: Uuid) -> Outgoing {
    let topic = PAYMENT_REFUND_REQUESTED.channel();
    participant::command(topic, saga::ids::undo_id, "payment", order, &json!({ "orderId": order }))
}

/// Topic and value of each answer, without the ids that differ from run to run.
fn said(answers: &[Outgoing]) -> Vec<(String, Value)> {
    let value = |answer: &Outgoing| {
        let mut value: Value = serde_json::from_slice(&answer.payload).expect("JSON");
        let object = value.as_object_mut().expect("an object");
        object.remove("orderId");
        object.remove("paymentId");
        value
    };
    answers.iter().map(|answer| (answer.topic.clone(), value(answer))).collect()
}

fn charged() -> (String, Value) {
    ("payment.successful".to_owned(), json!({ "amount": 3998, "currency": "EUR" }))
}

fn failed(reason: &str) -> (String, Value) {
    ("payment.failed".to_owned(), json!({ "reason": reason }))
}

fn refunded(amount: i64) -> (String, Value) {
    let value = if amount == 0 { json!({ "refunded": 0 }) } else { json!({ "refunded": amount, "currency": "EUR" }) };
    ("payment.refunded".to_owned(), value)
}

const REFUSED: &str = "payment refused: it was cancelled before it was charged";

/// State of the payment, and how many entries its ledger has of each kind.
async fn books(pool: &PgPool, order: Uuid) -> (String, i64, i64) {
    sqlx::query_as(
        "SELECT state, (SELECT count(*) FROM ledger_entries WHERE order_id = $1 AND kind = 'CHARGE'),
                (SELECT count(*) FROM ledger_entries WHERE order_id = $1 AND kind = 'REFUND')
         FROM payments WHERE order_id = $1",
    )
    .bind(order)
    .fetch_one(pool)
    .await
    .expect("a payment")
}

#[tokio::test]
async fn every_statement_prepares_with_the_rights_of_the_service() {
    let env = Env::bare("payment");
    env.create_database("payment").await;
    testkit::assert_statements_prepare(&env.role_pool("payment"), payment_svc::STATEMENTS).await;
}

#[test]
fn the_committed_openapi_document_is_that_of_the_routes() {
    testkit::assert_openapi_is_committed("payment-svc");
}
