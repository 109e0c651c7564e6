//! order.completed, order.cancelled, order.parked change an order's status, in the order of their versions.
//!
//! Rule "End events": only a greater version is applied.

use std::time::Duration;

use chrono::Utc;
use messaging::Outgoing;
use orders::Topic;
use serde_json::json;
use testkit::{Env, Process, order, wait_until};
use uuid::Uuid;

use crate::support::{get, post};

/// An end event as the orchestrator sends it.
pub(crate) fn end(topic: &str, order: Uuid, status: &str, version: u32, reason: Option<&str>) -> Outgoing {
    let event_type = Topic::find(topic).expect("a topic").event_type;
    let mut data = json!({ "orderId": order, "status": status, "sagaVersion": version, "customerId": "c-1001" });
    if let Some(reason) = reason {
        data["reason"] = json!(reason);
    }
    Outgoing {
        topic: topic.to_owned(),
        key: order.to_string(),
        id: Uuid::new_v5(&order, format!("{topic}/{version}").as_bytes()),
        event_type: event_type.to_owned(),
        source: "/chaos-symphony/orchestrator".to_owned(),
        subject: order.to_string(),
        time: Utc::now(),
        saga_id: Some(order),
        definition: None,
        step: None,
        causation_id: None,
        traceparent: None,
        payload: data.to_string().into_bytes(),
    }
}

/// Waits until the order has this status.
pub(crate) async fn order_shows(service: &Process, order: Uuid, status: &str) {
    let path = format!("/api/orders/{order}");
    let limit = Duration::from_secs(180);
    wait_until(&format!("{order} is {status}"), limit, async || get(service, &path).await.body["status"] == status)
        .await;
}

#[tokio::test]
async fn only_a_greater_version_changes_an_order() {
    let env = Env::new("orders").await;
    let service = env.start_service("order-api", &[]).await;
    let (first, second) = (post(&service, &order()).await.order(), post(&service, &order()).await.order());
    let path = format!("/api/orders/{first}");
    env.send(end("order.parked", first, "PARKED", 4, Some("no answer"))).await;
    order_shows(&service, first, "PARKED").await;
    assert_eq!(get(&service, &path).await.body["reason"], "no answer");
    env.send(end("order.completed", first, "COMPLETED", 7, None)).await;
    order_shows(&service, first, "COMPLETED").await;
    let completed = get(&service, &path).await.body;
    assert_eq!(completed.get("reason"), None);

    // Late, again, and out of order; then an event of the same partition count that shows they were read.
    env.send_all(&[
        end("order.parked", first, "PARKED", 4, Some("no answer")),
        end("order.parked", first, "PARKED", 6, Some("again")),
        end("order.completed", first, "COMPLETED", 7, None),
        end("order.parked", second, "PARKED", 3, None),
    ])
    .await;
    order_shows(&service, second, "PARKED").await;
    service.restart().await;
    env.send(end("order.cancelled", second, "CANCELLED", 9, Some("given up"))).await;
    order_shows(&service, second, "CANCELLED").await;
    assert_eq!(get(&service, &path).await.body, completed);
}

#[tokio::test]
async fn an_event_that_contradicts_its_topic_is_a_dead_letter_and_its_neighbours_are_applied() {
    let env = Env::new("orders").await;
    let service = env.start_service("order-api", &[]).await;
    let id = post(&service, &order()).await.order();
    let contradiction = end("order.completed", id, "PARKED", 9, None);
    let broken =
        Outgoing { payload: b"\x01\x02".to_vec(), ..end("order.completed", Uuid::now_v7(), "COMPLETED", 9, None) };
    let nul = end("order.completed", Uuid::now_v7(), "COMPLETED", 9, Some("\u{0}"));
    let sent = [(contradiction, "status-mismatch"), (broken, "invalid-json"), (nul, "invalid-text")];
    let mut all: Vec<Outgoing> = sent.iter().map(|(message, _)| message.clone()).collect();
    all.push(end("order.completed", id, "COMPLETED", 5, None));
    env.send_all(&all).await;

    order_shows(&service, id, "COMPLETED").await;
    for (message, reason) in &sent {
        let id = message.id.to_string();
        let letter = env
            .await_message("order.completed.dlq", |record| {
                record.header("ce_id") == Some(&*id) && record.payload.as_ref() == Some(&message.payload)
            })
            .await;
        assert_eq!(letter.header("dlq-reason"), Some(*reason));
    }
}
