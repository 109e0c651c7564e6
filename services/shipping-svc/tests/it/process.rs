//! The program as it is shipped, over Kafka and HTTP.

use messaging::Outgoing;
use serde_json::{Value, json};
use testkit::Env;
use uuid::Uuid;

use crate::{cancel, schedule};

async fn get(url: String) -> (u16, Value) {
    let response = reqwest::get(url).await.expect("an answer");
    (response.status().as_u16(), response.json().await.expect("JSON"))
}

#[tokio::test]
async fn bytes_that_nobody_understands_are_dead_letters_and_their_neighbours_are_answered() {
    let env = Env::new("shipping").await;
    let service = env.start_service("shipping-svc", &[]).await;
    let (good, unserved, undone) = (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
    let broken = |payload: &str| Outgoing { payload: payload.into(), ..schedule(Uuid::now_v7(), "FR") };
    let poisons = [
        broken("\u{1}\u{2}"),
        broken("{}"),
        schedule(Uuid::now_v7(), "ZZ"),
        Outgoing { payload: b"7".to_vec(), ..cancel(Uuid::now_v7()) },
    ];
    let mut all = poisons.to_vec();
    all.insert(1, schedule(good, "FR"));
    all.extend([schedule(unserved, "AQ"), schedule(undone, "FR")]);
    env.send_all(&all).await;

    for (order, topic) in [(good, "shipping.scheduled"), (unserved, "shipping.failed"), (undone, "shipping.scheduled")]
    {
        env.await_message(topic, |r| r.key == Some(order.to_string().into_bytes())).await;
    }
    env.send(cancel(undone)).await;
    env.await_message("shipping.cancelled", |r| r.key == Some(undone.to_string().into_bytes())).await;
    for message in &poisons {
        let topic = format!("{}.dlq", message.topic);
        let letter = env.await_message(&topic, |r| r.header("ce_id") == Some(message.id.to_string().as_str())).await;
        assert_eq!(letter.header("dlq-reason"), Some("invalid-json"));
        assert_eq!(letter.payload.as_ref(), Some(&message.payload));
    }

    let url = |path: &str| format!("{}/api/shipments/{path}", service.url());
    let (status, view) = get(url(&good.to_string())).await;
    assert_eq!((status, view["state"].as_str()), (200, Some("SCHEDULED")));
    let expected = json!({ "orderId": unserved, "state": "FAILED", "reason": "country AQ is not served" });
    assert_eq!(get(url(&unserved.to_string())).await, (200, expected));
    assert_eq!(get(url(&undone.to_string())).await.1["state"], "CANCELLED");
    assert_eq!(get(url(&Uuid::now_v7().to_string())).await.0, 404);
    assert_eq!(get(url("seven")).await.0, 400);
}
