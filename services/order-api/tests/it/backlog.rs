//! While too much waits to be published, orders are refused.

use std::time::Duration;

use testkit::{Env, order, order_with, wait_until};

use crate::support::{count, get, post, post_with_key};

const PATIENCE: Duration = Duration::from_secs(180);

async fn connector(env: &Env, verb: &str) {
    let url = format!("{}/connectors/{}orders-outbox/{verb}", env.connect_url(), env.prefix());
    let answer = reqwest::Client::new().put(url).send().await.expect("an answer of Connect");
    assert!(answer.status().is_success(), "{verb}: {}", answer.status());
}

#[tokio::test]
async fn orders_are_refused_while_the_outbox_is_not_published_and_taken_again_when_it_is() {
    let env = Env::new("orders").await;
    let settings = [
        ("BACKLOG_INTERVAL_MS", "100"),
        ("BACKLOG_MAX_RETAINED_MB", "64"),
        // Nobody ends these orders: each is published again every second.
        ("RECONCILER_INTERVAL_MS", "100"),
        ("RECONCILER_PENDING_AFTER_MS", "1000"),
        ("RECONCILER_MAX_INTERVAL_MS", "1000"),
    ];
    let service = env.start_service("order-api", &settings).await;
    env.start_connector().await;
    let pool = env.pool("orders");
    wait_until("orders are taken", PATIENCE, async || post(&service, &order()).await.status == 202).await;
    let accepted = post_with_key(&service, "before", &order()).await;
    assert_eq!(accepted.status, 202);

    connector(&env, "pause").await;
    // Log that a paused connector does not read.
    sqlx::query("CREATE TABLE filler AS SELECT repeat('x', 100) FROM generate_series(1, 1000000)")
        .execute(&pool)
        .await
        .expect("much log");
    wait_until("orders are refused", PATIENCE, async || post(&service, &order()).await.status == 503).await;
    let orders = count(&pool, "SELECT count(*) FROM orders").await;
    let refused = post(&service, &order()).await;
    assert_eq!((refused.status, refused.problem()), (503, "backlog"));
    assert!(refused.says_when_to_retry());
    assert_eq!(count(&pool, "SELECT count(*) FROM orders").await, orders);

    // An order that was accepted has its answer still; of other keys nothing is known.
    let again = post_with_key(&service, "before", &order()).await;
    assert_eq!((again.status, &again.body), (202, &accepted.body));
    let other = post_with_key(&service, "before", &order_with("/items/0/quantity", 3)).await;
    assert_eq!((other.status, other.problem()), (422, "idempotency-key-reused"));
    assert_eq!(post_with_key(&service, "after", &order()).await.problem(), "backlog");
    assert_eq!(count(&pool, "SELECT count(*) FROM orders").await, orders);

    // Nor is anything published again, which would only be more log that nobody reads.
    let events = async || count(&pool, "SELECT count(*) FROM order_outbox").await;
    wait_until("nothing is added to the outbox", PATIENCE, async || {
        let before = events().await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        events().await == before
    })
    .await;
    let waiting = events().await;

    // It serves everything else, and says what is wrong.
    let ready = get(&service, "/readyz?verbose").await;
    assert_eq!(ready.status, 200);
    let dependencies = ready.body["dependencies"].as_array().expect("dependencies");
    let backlog = dependencies.iter().find(|dependency| dependency["name"] == "outbox backlog").expect("a check");
    assert_eq!(backlog["state"], "down", "{backlog}");
    let metrics =
        reqwest::get(format!("{}/metrics", service.url())).await.expect("metrics").text().await.expect("text");
    assert!(metrics.contains("order_api_orders_refused_total{reason=\"backlog\"}"), "{metrics}");

    connector(&env, "resume").await;
    wait_until("orders are taken again", PATIENCE, async || post(&service, &order()).await.status == 202).await;
    let placed = async || count(&pool, "SELECT count(*) FROM orders").await - orders;
    wait_until("open orders are published again", PATIENCE, async || events().await > waiting + placed().await).await;
}
