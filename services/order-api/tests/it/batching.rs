//! Requests that wait together are inserted together, and no more wait than fit.

use std::time::Duration;

use testkit::{Env, order, order_with, wait_until};

use crate::support::{Answer, PATIENT, count, hold_inserts, post, request, rows, waiting_inserts};

const PATIENCE: Duration = Duration::from_secs(180);

#[tokio::test]
async fn orders_that_arrive_during_an_insert_share_the_next_one() {
    let env = Env::new("orders").await;
    let service = env.start_service("order-api", &[&PATIENT[..], &[("WRITER_WORKERS", "1")]].concat()).await;
    let pool = env.pool("orders");
    let lock = hold_inserts(&pool).await;
    let ask = || {
        let request = request(&service, None, &order());
        tokio::spawn(async move { Answer::of(request.send().await.expect("an answer")).await })
    };
    let first = ask();
    wait_until("the first order is being inserted", PATIENCE, async || waiting_inserts(&pool).await == 1).await;
    let rest: Vec<_> = (0..63).map(|_| ask()).collect();
    wait_until("the others are queued", PATIENCE, async || queued(&service).await == 63).await;
    lock.rollback().await.expect("the lock is released");

    first.await.expect("no panic").order();
    for answer in rest {
        answer.await.expect("no panic").order();
    }
    assert_eq!(rows(&pool).await, (64, 64, 64));
    // One transaction for the first order and one for all that came meanwhile, with their lines and events.
    assert_eq!(count(&pool, "SELECT count(DISTINCT xmin::text) FROM orders").await, 2);
    let shared = "SELECT count(*) FROM orders JOIN order_items ON order_id = orders.id
                    JOIN order_outbox ON aggregateid = orders.id::text
                   WHERE orders.xmin = order_items.xmin AND orders.xmin::text = order_outbox.xmin::text";
    assert_eq!(count(&pool, shared).await, 64);
}

#[tokio::test]
async fn a_full_queue_is_a_503_and_makes_no_order() {
    let env = Env::new("orders").await;
    let settings = [&PATIENT[..], &[("WRITER_WORKERS", "1"), ("WRITER_QUEUE_CAPACITY", "1")]].concat();
    let service = env.start_service("order-api", &settings).await;
    let pool = env.pool("orders");
    let lock = hold_inserts(&pool).await;
    let inserting = tokio::spawn(request(&service, None, &order()).send());
    wait_until("one order is being inserted", PATIENCE, async || waiting_inserts(&pool).await == 1).await;
    let waiting = tokio::spawn(request(&service, None, &order()).send());
    wait_until("one order is queued", PATIENCE, async || queued(&service).await == 1).await;

    let refused = post(&service, &order()).await;
    assert_eq!((refused.status, refused.problem()), (503, "unavailable"));
    assert!(refused.says_when_to_retry());
    lock.rollback().await.expect("the lock is released");
    for accepted in [inserting, waiting] {
        assert_eq!(accepted.await.expect("no panic").expect("an answer").status(), 202);
    }
    assert_eq!(rows(&pool).await, (2, 2, 2));
}

#[tokio::test]
async fn an_order_that_the_database_refuses_fails_alone() {
    let env = Env::new("orders").await;
    let service = env.start_service("order-api", &[&PATIENT[..], &[("WRITER_WORKERS", "1")]].concat()).await;
    let pool = env.pool("orders");
    sqlx::query("ALTER TABLE orders ADD CONSTRAINT nobody CHECK (customer_id <> 'refused')")
        .execute(&pool)
        .await
        .expect("a constraint that the service knows nothing of");
    let lock = hold_inserts(&pool).await;
    let first = tokio::spawn(request(&service, None, &order()).send());
    wait_until("one order is being inserted", PATIENCE, async || waiting_inserts(&pool).await == 1).await;
    let batch: Vec<_> = (0..8)
        .map(|n| {
            let customer = if n == 5 { "refused" } else { "c-1001" };
            tokio::spawn(request(&service, None, &order_with("/customerId", customer)).send())
        })
        .collect();
    wait_until("the others are queued", PATIENCE, async || queued(&service).await == 8).await;
    lock.rollback().await.expect("the lock is released");
    assert_eq!(first.await.expect("no panic").expect("an answer").status(), 202);
    let mut statuses = Vec::new();
    for answer in batch {
        statuses.push(answer.await.expect("no panic").expect("an answer").status().as_u16());
    }
    assert_eq!(statuses, [202, 202, 202, 202, 202, 500, 202, 202]);
    assert_eq!(rows(&pool).await, (8, 8, 8));
}

/// The gauge of waiting orders.
async fn queued(service: &testkit::Process) -> i64 {
    let metrics = reqwest::get(format!("{}/metrics", service.url())).await.expect("an answer");
    let metrics = metrics.text().await.expect("text");
    let line = metrics.lines().find_map(|line| line.strip_prefix("order_api_queued_orders "));
    line.map_or(0, |value| value.parse().expect("a whole number"))
}
