//! notification-svc on a real database and a real broker.

mod plans;

use messaging::Outgoing;
use notification_svc::notify::Notifier;
use orders::Topic;
use orders::topics::{ORDER_CANCELLED, ORDER_COMPLETED};
use serde_json::{Value, json};
use testkit::participant::{self, deliver, rows};
use testkit::{Env, wait_until};
use uuid::Uuid;

fn ended(topic: Topic, status: &str, order: Uuid) -> Outgoing {
    let data = json!({
        "orderId": order, "status": status, "sagaVersion": 7, "reason": "payment declined", "customerId": "c-1",
    });
    let id = |order: Uuid, topic: &str| Uuid::new_v5(&order, topic.as_bytes());
    let message = participant::command((topic.name, topic.event_type), id, topic.name, order, &data);
    Outgoing { step: None, ..message }
}

fn completed(order: Uuid) -> Outgoing {
    ended(ORDER_COMPLETED, "COMPLETED", order)
}

fn cancelled(order: Uuid) -> Outgoing {
    ended(ORDER_CANCELLED, "CANCELLED", order)
}

#[tokio::test]
async fn every_statement_prepares_with_the_rights_of_the_service() {
    let env = Env::bare("notification");
    env.create_database("notification").await;
    testkit::assert_statements_prepare(&env.role_pool("notification"), notification_svc::STATEMENTS).await;
}

#[tokio::test]
async fn a_customer_is_told_once_however_often_the_order_ends() {
    let env = Env::bare("notification");
    env.create_database("notification").await;
    let notifier = Notifier::new(env.role_pool("notification"));
    let (good, bad) = (Uuid::now_v7(), Uuid::now_v7());
    let batch = [completed(good), cancelled(bad), completed(good)];
    assert_eq!(deliver(&notifier, &batch).await, []);
    let pool = env.pool("notification");
    let before = rows(&pool, &["notifications"]).await;
    assert_eq!(before.len(), 2);
    deliver(&notifier, &batch).await;
    assert_eq!(rows(&pool, &["notifications"]).await, before);
}

#[tokio::test]
async fn what_cannot_be_sent_is_a_dead_letter_and_its_neighbours_are_sent() {
    let env = Env::new("notification").await;
    let service = env.start_service("notification-svc", &[]).await;
    let orders: Vec<Uuid> = (0..5).map(|_| Uuid::now_v7()).collect();
    // Decodes well, but PostgreSQL's text has no NUL: the batch is split until this one is alone.
    let mut unsendable = cancelled(Uuid::now_v7());
    unsendable.payload = String::from_utf8(unsendable.payload).expect("JSON").replace("c-1", "c-\\u0000").into_bytes();
    let poisons = [
        (unsendable, "handler-failed"),
        (Outgoing { payload: b"\x01".to_vec(), ..completed(Uuid::now_v7()) }, "invalid-json"),
        (ended(ORDER_COMPLETED, "PARKED", Uuid::now_v7()), "invalid-status"),
    ];
    let mut all: Vec<Outgoing> = poisons.iter().map(|(message, _)| message.clone()).collect();
    all.extend(orders.iter().map(|order| if *order == orders[0] { cancelled(*order) } else { completed(*order) }));
    env.send_all(&all).await;

    for (message, reason) in &poisons {
        let topic = format!("{}.dlq", message.topic);
        let letter = env.await_message(&topic, |r| r.header("ce_id") == Some(message.id.to_string().as_str())).await;
        assert_eq!(letter.payload.as_ref(), Some(&message.payload));
        if *reason != "handler-failed" {
            assert_eq!(letter.header("dlq-reason"), Some(*reason));
        }
    }
    let list = async |query: &str| -> Value {
        let url = format!("{}/api/notifications{query}", service.url());
        reqwest::get(url).await.expect("an answer").json().await.expect("JSON")
    };
    let count = |page: &Value| page["items"].as_array().map(Vec::len);
    let limit = std::time::Duration::from_secs(30);
    wait_until("five customers were told", limit, async || count(&list("").await) == Some(5)).await;

    let only = list(&format!("?orderId={}", orders[0])).await;
    assert_eq!(count(&only), Some(1));
    assert_eq!(only["items"][0]["kind"], "CANCELLED");
    assert!(only["items"][0]["message"].as_str().is_some_and(|text| text.contains("payment declined")));

    let mut seen = Vec::new();
    let mut page = list("?limit=2").await;
    loop {
        seen.extend(page["items"].as_array().expect("items").iter().map(|item| item["orderId"].clone()));
        let Some(cursor) = page["nextCursor"].as_str() else { break };
        page = list(&format!("?limit=2&cursor={cursor}")).await;
    }
    let newest_first: Vec<Value> = orders.iter().rev().map(|order| json!(order)).collect();
    assert_eq!(seen, newest_first);
    assert_eq!(list("?cursor=seven").await["status"], 400);
    assert_eq!(list("?orderId=seven").await["status"], 400);
    assert_eq!(list("?orderid=seven").await["errors"][0]["parameter"], "orderid");
}

#[test]
fn the_committed_openapi_document_is_that_of_the_routes() {
    testkit::assert_openapi_is_committed("notification-svc");
}
