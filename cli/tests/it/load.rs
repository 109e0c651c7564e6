//! Loads that are longer than a list of order-api looks at in one go.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use symphony_cli::api::Api;
use symphony_cli::commands::load::Ends;
use testkit::Env;

use crate::stand::{SOON, number};

/// More than the stretch of orders that one page of a list by status covers.
const ENDED: i32 = 50_600;

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_load_of_more_than_a_stretch_of_orders_is_seen() {
    let env = Env::new("long-load").await;
    let service = env.start_service("order-api", &[]).await;
    let state_file = env.dir().join("state.json");
    let state = json!({ "components": [{ "name": "order-api", "url": service.url() }] });
    std::fs::write(&state_file, state.to_string()).expect("the state");
    let ends = Ends {
        api: Api::new(state_file).expect("a client"),
        customer: "long".into(),
        patience: Duration::from_secs(120),
    };
    // The oldest order is the last to end: it is behind all the others in the list.
    let insert = "INSERT INTO orders (id, customer_id, status, total_minor, currency)
                  SELECT uuidv7(), 'long', CASE number WHEN 0 THEN 'PENDING' ELSE 'COMPLETED' END, 100, 'EUR'
                    FROM generate_series(0, $1) AS number";
    let pool = env.pool("orders");
    sqlx::query(insert).bind(ENDED).execute(&pool).await.expect("orders");
    assert_eq!(number(&env, "orders", "SELECT count(*) FROM orders").await, i64::from(ENDED) + 1);

    let waiting = ends.wait();
    tokio::pin!(waiting);
    let early = tokio::time::timeout(Duration::from_secs(2), &mut waiting).await;
    assert!(early.is_err(), "one order is still pending");
    sqlx::query("UPDATE orders SET status = 'CANCELLED' WHERE status = 'PENDING'")
        .execute(&pool)
        .await
        .expect("an end");
    let seen = tokio::time::timeout(SOON, waiting).await;
    seen.expect("the last end is seen").expect("answers");

    let counts = ends.count().await.expect("answers");
    let completed = u64::try_from(ENDED).expect("a count");
    assert_eq!(counts, BTreeMap::from([("CANCELLED".into(), 1), ("COMPLETED".into(), completed)]));
}
