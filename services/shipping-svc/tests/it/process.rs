//! The program as it is shipped, over Kafka and HTTP.

use std::time::Duration;

use messaging::Outgoing;
use serde_json::{Value, json};
use testkit::{Env, FaultProxy, wait_until};
use uuid::Uuid;

use crate::{cancel, schedule};

const SOON: Duration = Duration::from_secs(60);

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
    service.wait_exit(Duration::from_secs(30)).await;
    assert!(fired.exists(), "it died of something else");
    let state = "SELECT state FROM shipments WHERE order_id = $1";
    let state: String = sqlx::query_scalar(state).bind(order).fetch_one(&env.pool("shipping")).await.expect("a row");
    assert_eq!(state, "SCHEDULED", "nothing was committed");
    service.start().await;
    env.await_message("shipping.cancelled", |record| record.key == key).await;
    let url = format!("{}/api/shipments/{order}", service.url());
    assert_eq!(get(url).await.1["state"], "CANCELLED");
}

/// A metric of the service, by its name with its labels.
async fn metric(service: &testkit::Process, name: &str) -> Option<f64> {
    let text = reqwest::get(format!("{}/metrics", service.url())).await.expect("an answer").text().await.expect("text");
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_whose_database_is_away_says_since_when_it_waits_and_how_far_it_is_behind() {
    let env = Env::new("shipping").await;
    let faults = FaultProxy::start(env.dir()).await;
    let link = faults.create("postgres", &format!("127.0.0.1:{}", env.servers().postgres)).await;
    let service = env.start_service("shipping-svc", &[("DATABASE_URL", &env.database_url_at("shipping", link))]).await;
    let wait = async || {
        let (_, report) = get(format!("{}/readyz?verbose", service.url())).await;
        let dependencies = report["dependencies"].as_array().cloned().unwrap_or_default();
        dependencies.into_iter().find_map(|dependency| dependency.get("waiting").cloned())
    };
    assert_eq!(wait().await, None);

    faults.enable("postgres", false).await;
    let orders: Vec<Uuid> = (0..20).map(|_| Uuid::now_v7()).collect();
    env.send_all(&orders.iter().map(|order| schedule(*order, "FR")).collect::<Vec<_>>()).await;
    let mut seen = Vec::new();
    wait_until("four attempts to fail", SOON, async || {
        seen.extend(wait().await);
        seen.last().is_some_and(|wait: &Value| wait["attempts"].as_u64() >= Some(4))
    })
    .await;
    // To the millisecond: a wait that changed hands is noted so.
    let since = |wait: &Value| {
        let text = wait["since"].as_str().unwrap_or_default();
        chrono::DateTime::parse_from_rfc3339(text).expect("a time").timestamp_millis()
    };
    assert!(seen.iter().all(|wait| since(wait) == since(&seen[0]) && wait["kind"] == "database"), "{seen:?}");
    let labels = r#"{cause="database",group="shipping-svc"}"#;
    wait_until("the metrics to say it", SOON, async || {
        let attempts = metric(&service, &format!("messaging_consumer_wait_attempts{labels}")).await;
        let since = metric(&service, &format!("messaging_consumer_waiting_since_timestamp_seconds{labels}")).await;
        let lag = r#"messaging_consumer_lag_messages{group="shipping-svc",topic="shipping.requested"}"#;
        let age = r#"messaging_consumer_oldest_message_age_seconds{group="shipping-svc",topic="shipping.requested"}"#;
        attempts >= Some(4.0)
            && since > Some(1e9)
            && metric(&service, lag).await == Some(20.0)
            && metric(&service, age).await > Some(0.0)
    })
    .await;
    assert_eq!(wait().await.expect("it waits")["lag"], 20, "for status too");

    faults.enable("postgres", true).await;
    for order in &orders {
        env.await_message("shipping.scheduled", |record| record.key == Some(order.to_string().into_bytes())).await;
    }
    wait_until("the wait to be over everywhere", SOON, async || {
        let lag = r#"messaging_consumer_lag_messages{group="shipping-svc",topic="shipping.requested"}"#;
        wait().await.is_none()
            && metric(&service, "messaging_consumer_waiting").await == Some(0.0)
            && metric(&service, &format!("messaging_consumer_wait_attempts{labels}")).await == Some(0.0)
            && metric(&service, lag).await == Some(0.0)
    })
    .await;
}

/// Invariant I6 for a message that ends whatever process handles it: without an end to that, it would block its partition.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_ends_every_process_that_handles_it_is_buried_and_its_neighbours_live() {
    let env = Env::new("shipping").await;
    let fired = env.dir().join("fired");
    let note = fired.display().to_string();
    let failpoint = [("FAILPOINT", "before-commit@shipping-svc"), ("FAILPOINT_FIRED", note.as_str())];
    let service = env.prepare_service("shipping-svc", &failpoint).await;
    let deadly = Uuid::now_v7();
    env.send(schedule(deadly, "FR")).await;
    let mut deaths = 0;
    let buried = loop {
        // Whatever it handles next ends it, and it has nothing but this message.
        let _ = std::fs::remove_file(&fired);
        service.launch();
        let ended = tokio::select! {
            _ = service.wait_exit(SOON) => true,
            letter = env.await_message("shipping.requested.dlq", |_| true) => break letter,
        };
        assert!(ended && fired.exists(), "it ended for another reason: {}", service.log());
        deaths += 1;
        assert!(deaths <= 30, "it goes on for ever");
    };
    // A machine that needs seconds to come to the failpoint does not end the process suddenly: that does not count.
    assert!(deaths >= 6, "{deaths}");
    assert_eq!(buried.header("dlq-reason"), Some("process-death"));
    assert_eq!(buried.header("dlq-attempts"), Some("6"));
    assert_eq!(buried.key, Some(deadly.to_string().into_bytes()));

    // The failpoint has not been reached again, so it is still armed: the neighbour goes through at its second try.
    let good = Uuid::now_v7();
    env.send(schedule(good, "FR")).await;
    service.wait_exit(SOON).await;
    service.start().await;
    env.await_message("shipping.scheduled", |record| record.key == Some(good.to_string().into_bytes())).await;
}
