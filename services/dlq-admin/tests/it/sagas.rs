use orders::topics::{ORDER_COMPLETED, ORDER_CREATED, PAYMENT_FAILED, PAYMENT_REQUESTED};
use serde_json::json;
use testkit::participant::command;
use testkit::{Env, wait_until};
use uuid::Uuid;

use crate::support::{Desk, SOON, answer, id, record};

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_a_saga_that_has_ended_is_refused_with_its_timeline_and_its_listeners_are_not() {
    let env = Env::new("dlq-admin").await;
    let orchestrator = env.start_service("orchestrator", &[]).await;
    let address = orchestrator.port_file().display().to_string();
    let desk = Desk::on(env, &[("ORCHESTRATOR_ADDRESS_FILE", &address)]).await;

    // A saga that ends at once: its payment is declined.
    let order = Uuid::now_v7();
    let created = json!({
        "orderId": order, "customerId": "c-1", "currency": "EUR", "total": 100,
        "items": [{ "sku": "SKU-001", "quantity": 1, "unitPrice": 100 }], "payment": { "token": "tok_ok" },
        "shipping": { "name": "Ada", "street": "1", "city": "Paris", "postalCode": "75001", "country": "FR" },
        "createdAt": "2026-11-21T10:00:00Z",
    });
    let topic = |topic: orders::Topic| (topic.name, topic.event_type);
    let mut trigger = command(topic(ORDER_CREATED), |saga, _| saga, "", order, &created);
    trigger.step = None;
    desk.env.send(trigger).await;
    let key = order.to_string();
    let asked = desk.env.await_message("payment.requested", |r| r.key.as_deref() == Some(key.as_bytes())).await;
    let declined = json!({ "orderId": order, "reason": "declined" });
    let mut reply =
        command(topic(PAYMENT_FAILED), |saga, step| Uuid::new_v5(&saga, step.as_bytes()), "payment", order, &declined);
    reply.causation_id = asked.header("ce_id").and_then(|id| id.parse().ok());
    desk.env.send(reply).await;
    let saga = format!("{}/api/sagas/{order}", orchestrator.url());
    wait_until("the saga to end", SOON, async || {
        let (_, saga) = answer(reqwest::Client::new().get(&saga)).await;
        saga["state"] == "COMPENSATED"
    })
    .await;

    let letter = |topic: &str, name: &str, saga: Uuid| {
        let saga = saga.to_string();
        let headers: &[(&str, &[u8])] = &[
            (name, saga.as_bytes()),
            ("dlq-topic", topic.as_bytes()),
            ("dlq-partition", b"0"),
            ("dlq-offset", b"7"),
            ("dlq-consumer-group", b"nobody"),
            ("dlq-reason", b"test"),
        ];
        record(saga.as_bytes(), b"{}", headers)
    };
    desk.produce("payment.requested.dlq", &[letter(PAYMENT_REQUESTED.name, "ce_sagaid", order)]).await;
    desk.produce("shipping.requested.dlq", &[letter("shipping.requested", "ce_sagaid", Uuid::now_v7())]).await;
    desk.produce("order.completed.dlq", &[letter(ORDER_COMPLETED.name, "ce_sagaid", order)]).await;
    // It names no saga. Its key is the order, and so the saga.
    desk.produce("inventory.requested.dlq", &[letter("inventory.requested", "x-other", order)]).await;
    desk.awaits("", 4).await;
    let replay = async |topic: &str| {
        let letter = id(&desk.letters(&format!("topic={topic}")).await[0]);
        desk.post(&format!("/api/dlq/messages/{letter}/replay"), json!({})).await
    };
    let (status, problem) = replay("payment.requested").await;
    assert_eq!((status, &problem["type"]), (409, &json!("https://chaossymphony.dev/problems/saga-ended")), "{problem}");
    assert_eq!(problem["saga"]["state"], "COMPENSATED");
    assert!(problem["saga"]["timeline"].as_array().is_some_and(|timeline| timeline.len() >= 2), "{problem}");
    let (status, problem) = replay("inventory.requested").await;
    assert_eq!((status, &problem["saga"]["state"]), (409, &json!("COMPENSATED")), "{problem}");
    assert_eq!(replay("order.completed").await.0, 202, "who listens to the end does so after it");

    let (_, told) = desk.post("/api/dlq/replays", json!({ "filter": {}, "dryRun": true })).await;
    assert_eq!((&told["matched"], &told["refused"]), (&json!(3), &json!(2)), "{told}");
    assert_eq!(told["refusals"][0]["reason"], "saga-ended: COMPENSATED");
    let (_, campaign) = desk.post("/api/dlq/replays", json!({ "filter": { "topic": "payment.requested" } })).await;
    wait_until("the campaign to end", SOON, async || {
        let campaign = desk.get(&format!("/api/dlq/replays/{}", id(&campaign))).await;
        campaign["state"] == "COMPLETED" && campaign["progress"]["refused"] == 1
    })
    .await;

    // Nobody knows: it is asked again later.
    orchestrator.kill9().await;
    let path = format!("/api/dlq/messages/{}/replay", id(&desk.letters("topic=shipping.requested").await[0]));
    let response = desk.request("POST", &path).send().await.expect("an answer");
    assert_eq!(response.status(), 503);
    assert!(response.headers().contains_key("retry-after"));
    orchestrator.start().await;
    assert_eq!(desk.post(&path, json!({})).await.0, 202, "a saga that nobody knows has not ended");
}
