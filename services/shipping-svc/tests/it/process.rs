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

#[tokio::test]
async fn a_crash_inside_the_transaction_of_a_cancel_is_healed_by_redelivery() {
    let env = Env::new("shipping").await;
    let fired = env.dir().join("fired");
    let note = fired.display().to_string();
    let failpoint = [("FAILPOINT", "in-transaction@shipping-svc"), ("FAILPOINT_FIRED", note.as_str())];
    let service = env.start_service("shipping-svc", &failpoint).await;
    let order = Uuid::now_v7();
    let key = Some(order.to_string().into_bytes());
    env.send(schedule(order, "FR")).await;
    env.await_message("shipping.scheduled", |record| record.key == key).await;
    env.send(cancel(order)).await;
    service.wait_exit(std::time::Duration::from_secs(30)).await;
    assert!(fired.exists(), "it died of something else");
    let state = "SELECT state FROM shipments WHERE order_id = $1";
    let state: String = sqlx::query_scalar(state).bind(order).fetch_one(&env.pool("shipping")).await.expect("a row");
    assert_eq!(state, "SCHEDULED", "nothing was committed");
    service.start().await;
    env.await_message("shipping.cancelled", |record| record.key == key).await;
    let url = format!("{}/api/shipments/{order}", service.url());
    assert_eq!(get(url).await.1["state"], "CANCELLED");
}
