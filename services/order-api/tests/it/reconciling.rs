//! An order that stays pending or parked is published again from its stored row.
//!
//! Rule "No Kafka input, no redelivery": what Kafka lost comes again from the database.

use std::time::Duration;

use sqlx::PgPool;
use testkit::{Env, order, wait_until};
use uuid::Uuid;

use crate::applying_ends::{end, order_shows};
use crate::support::{count, post};

const PATIENCE: Duration = Duration::from_secs(180);
/// An order is published again after a second, and then every second.
const HASTY: [(&str, &str); 3] =
    [("RECONCILER_INTERVAL_MS", "50"), ("RECONCILER_PENDING_AFTER_MS", "1000"), ("RECONCILER_MAX_INTERVAL_MS", "1000")];

/// How often `order` was written to the outbox.
async fn rows(pool: &PgPool, order: Uuid) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM order_outbox WHERE aggregateid = $1")
        .bind(order.to_string())
        .fetch_one(pool)
        .await
        .expect("a count")
}

#[tokio::test]
async fn a_pending_order_is_published_again_as_the_same_message_by_one_replica_at_a_time() {
    let env = Env::new("orders").await;
    let service = env.start_service("order-api", &HASTY).await;
    let _other = env.start_service("order-api", &HASTY).await;
    let (lost, ended) = (post(&service, &order()).await.order(), post(&service, &order()).await.order());
    env.send(end("order.completed", ended, "COMPLETED", 4, None)).await;
    order_shows(&service, ended, "COMPLETED").await;

    let pool = env.pool("orders");
    wait_until("the order was published again, twice", PATIENCE, async || rows(&pool, lost).await >= 3).await;
    env.send(end("order.cancelled", lost, "CANCELLED", 4, None)).await;
    order_shows(&service, lost, "CANCELLED").await;
    wait_until("nothing is waited for", PATIENCE, async || {
        count(&pool, "SELECT count(*) FROM order_stragglers").await == 0
    })
    .await;

    let distinct = "SELECT count(DISTINCT (id, aggregatetype, type, payload, source, time, sagaid, specversion,
                                          contenttype, traceparent)) FROM order_outbox";
    assert_eq!(count(&pool, distinct).await, 2, "what is published again is the same message");
    let shortest: f64 = sqlx::query_scalar(
        "SELECT min(gap)::float8 FROM (
             SELECT extract(epoch FROM created_at - lag(created_at) OVER (PARTITION BY id ORDER BY created_at)) AS gap
               FROM order_outbox) AS gaps",
    )
    .fetch_one(&pool)
    .await
    .expect("a gap");
    assert!(shortest >= 1.0, "published again after {shortest} s");
}

#[tokio::test]
async fn a_parked_order_is_published_again_until_it_has_ended() {
    let env = Env::new("orders").await;
    let service = env.start_service("order-api", &HASTY).await;
    let pool = env.pool("orders");
    // One is parked when it is first looked at, the other was pending then.
    let (early, late) = (post(&service, &order()).await.order(), post(&service, &order()).await.order());
    env.send(end("order.parked", early, "PARKED", 4, None)).await;
    wait_until("the pending one was published again", PATIENCE, async || rows(&pool, late).await >= 2).await;
    order_shows(&service, early, "PARKED").await;
    env.send(end("order.parked", late, "PARKED", 4, None)).await;
    order_shows(&service, late, "PARKED").await;

    let (early_rows, late_rows) = (rows(&pool, early).await, rows(&pool, late).await);
    wait_until("both are published again while they are parked", PATIENCE, async || {
        rows(&pool, early).await >= early_rows + 2 && rows(&pool, late).await >= late_rows + 2
    })
    .await;
    for order in [early, late] {
        env.send(end("order.cancelled", order, "CANCELLED", 6, None)).await;
        order_shows(&service, order, "CANCELLED").await;
    }
    wait_until("nothing is waited for", PATIENCE, async || {
        count(&pool, "SELECT count(*) FROM order_stragglers").await == 0
    })
    .await;
}

#[tokio::test]
async fn an_order_from_before_a_long_absence_is_found() {
    let env = Env::new("orders").await;
    let settings = [("RECONCILER_INTERVAL_MS", "50")];
    let service = env.prepare_service("order-api", &settings).await;
    let pool = env.pool("orders");
    sqlx::query(
        "WITH old AS (
             INSERT INTO orders (id, customer_id, total_minor, currency, created_at)
             SELECT gen_random_uuid(), 'c', 1, 'EUR', now() - interval '9 hours' RETURNING id, created_at
         )
         INSERT INTO order_outbox (id, aggregatetype, aggregateid, type, payload, source, time, sagaid, created_at)
         SELECT gen_random_uuid(), 'order.created', id::text, 't', '{}', 's', 't', id::text, created_at FROM old",
    )
    .execute(&pool)
    .await
    .expect("an old order");
    sqlx::query("UPDATE order_reconciler SET scanned_through = now() - interval '10 hours'")
        .execute(&pool)
        .await
        .expect("a reconciler that was away");
    service.start().await;
    wait_until("it was published again", PATIENCE, async || {
        count(&pool, "SELECT count(*) FROM order_outbox").await == 2
    })
    .await;
    let recent = "SELECT count(*) FROM order_outbox WHERE created_at > now() - interval '1 hour'";
    assert_eq!(count(&pool, recent).await, 1);
}
