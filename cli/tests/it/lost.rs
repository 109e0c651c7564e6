//! An event that Kafka lost after the order was parked.

use serde_json::json;
use testkit::{Env, order, wait_until};

use crate::stand::{SOON, impatient};

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_order_whose_end_was_lost_is_healed_by_publishing_it_again() {
    let env = Env::new("lost").await;
    // Nobody takes payments or gives them back, and the saga does not wait for long.
    let sagas = impatient(
        &env,
        &[
            ("  deadline: 15s\n  attempts: 4", "  deadline: 1s\n  attempts: 1"),
            ("    deadline: 15s\n    attempts: 20", "    deadline: 1s\n    attempts: 1"),
        ],
    );
    let cluster = env
        .cluster()
        .set("orchestrator", "SAGAS_DIR", sagas)
        .set("order-api", "RECONCILER_INTERVAL_MS", 200)
        .set("order-api", "RECONCILER_PENDING_AFTER_MS", 2_000)
        .set("order-api", "RECONCILER_MAX_INTERVAL_MS", 2_000)
        .instances("payment-svc", 0)
        .instances("notification-svc", 0)
        .start()
        .await;
    let id = cluster.place(&order()).await;
    assert_eq!(cluster.ended(id, SOON).await["status"], "PARKED");

    // While order-api is away an operator settles it, and the topic is lost with the event.
    let order_api = cluster.service("order-api");
    order_api.stop().await;
    let url = format!("{}/api/sagas/{id}/resolve", cluster.service("orchestrator").url());
    let resolution = json!({ "outcome": "CANCELLED", "reason": "nothing was charged" });
    let answer = cluster.client().post(url).json(&resolution).send().await.expect("an answer");
    assert_eq!(answer.status(), 200, "{:?}", answer.text().await);
    let of_order = |record: &messaging::Record| record.key.as_deref() == Some(id.to_string().as_bytes());
    env.await_message("order.cancelled", of_order).await;
    let kafka = env.kafka();
    let (broker, topic) = (&kafka.bootstrap_servers, kafka.topic("order.cancelled"));
    let partitions = messaging::admin::list_topics(broker).await.expect("topics")[&topic];
    messaging::admin::delete_topics(broker, &[&topic]).await.expect("the loss");
    wait_until("the topic is gone", SOON, async || {
        !messaging::admin::list_topics(broker).await.expect("topics").contains_key(&topic)
    })
    .await;
    env.create_topics(&["order.cancelled"], i32::try_from(partitions).expect("few")).await;
    let ended = cluster.saga(id).await;

    order_api.start().await;
    let path = format!("/api/orders/{id}");
    wait_until("the order is cancelled", SOON, async || cluster.get("order-api", &path).await["status"] == "CANCELLED")
        .await;
    assert_eq!(cluster.saga(id).await, ended, "its saga is not touched");
    let stragglers = async || -> i64 {
        let sql = "SELECT count(*) FROM order_stragglers";
        sqlx::query_scalar(sql).fetch_one(&env.pool("orders")).await.expect("a count")
    };
    wait_until("it is forgotten", SOON, async || stragglers().await == 0).await;
}
