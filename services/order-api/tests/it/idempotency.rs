//! One order for one Idempotency-Key.
//!
//! Rule "Idempotency-Key": it commits with the order, and what is in flight is only remembered.

use std::time::Duration;

use serde_json::json;
use testkit::{Env, order, order_with, wait_until};

use crate::support::{PATIENT, count, hold_inserts, post, post_with_key, request, rows, waiting_inserts};

const PATIENCE: Duration = Duration::from_secs(180);

#[tokio::test]
async fn a_repeated_request_gets_the_same_answer_and_another_body_a_problem() {
    let env = Env::new("orders").await;
    let service = env.start_service("order-api", &[]).await;
    let first = post_with_key(&service, "key-1", &order()).await;
    let mut respelled = order();
    respelled["a field that is not known"] = json!(true);
    let again = post_with_key(&service, "key-1", &respelled).await;
    assert_eq!((again.status, &again.body), (202, &first.body));
    assert_eq!(again.headers["location"], first.headers["location"]);

    let other = post_with_key(&service, "key-1", &order_with("/items/0/quantity", 3)).await;
    assert_eq!((other.status, other.problem()), (422, "idempotency-key-reused"));
    // A body that is invalid does not use its key up.
    assert_eq!(post_with_key(&service, "key-2", &order_with("/currency", "ZZZ")).await.status, 422);
    assert_ne!(post_with_key(&service, "key-2", &order()).await.order(), first.order());
    for key in [" ", "a b", &"k".repeat(256)] {
        let answer = post_with_key(&service, key, &order()).await;
        assert_eq!((answer.status, answer.problem()), (400, "malformed-request"), "{key:?}");
    }
    assert_eq!(rows(&env.pool("orders")).await, (2, 2, 2));

    // The key is as durable as the order.
    service.kill9().await;
    service.start().await;
    assert_eq!(post_with_key(&service, "key-1", &order()).await.body, first.body);
}

#[tokio::test]
async fn a_key_in_flight_is_a_conflict_and_a_client_that_leaves_does_not_take_its_order_along() {
    let env = Env::new("orders").await;
    let service = env.start_service("order-api", &PATIENT).await;
    let pool = env.pool("orders");
    let lock = hold_inserts(&pool).await;

    let impatient = tokio::spawn(request(&service, Some("left"), &order()).send());
    wait_until("the first insert waits", PATIENCE, async || waiting_inserts(&pool).await == 1).await;
    impatient.abort();
    assert!(impatient.await.expect_err("no answer while inserts are held back").is_cancelled());
    let waiting = tokio::spawn(request(&service, Some("waits"), &order()).send());
    // Both replicas of the answer's way are busy: one insert each.
    wait_until("both inserts wait", PATIENCE, async || waiting_inserts(&pool).await == 2).await;
    for key in ["left", "waits"] {
        let conflict = post_with_key(&service, key, &order()).await;
        assert_eq!((conflict.status, conflict.problem()), (409, "idempotency-key-in-flight"));
        assert!(conflict.says_when_to_retry());
    }

    lock.rollback().await.expect("the lock is released");
    let answered = waiting.await.expect("no panic").expect("an answer");
    assert_eq!(answered.status(), 202);
    wait_until("both orders are there", PATIENCE, async || rows(&pool).await == (2, 2, 2)).await;
    let found = post_with_key(&service, "left", &order()).await.order();
    let stored: uuid::Uuid = sqlx::query_scalar("SELECT id FROM orders WHERE idempotency_key = 'left'")
        .fetch_one(&pool)
        .await
        .expect("the order of the client that left");
    assert_eq!(found, stored);
}

#[tokio::test]
async fn a_process_killed_with_a_key_in_flight_leaves_no_conflict_behind() {
    let env = Env::new("orders").await;
    let service = env.start_service("order-api", &PATIENT).await;
    let pool = env.pool("orders");
    let lock = hold_inserts(&pool).await;
    let lost = tokio::spawn(request(&service, Some("key"), &order()).send());
    wait_until("the insert waits", PATIENCE, async || waiting_inserts(&pool).await == 1).await;
    assert_eq!(post_with_key(&service, "key", &order()).await.problem(), "idempotency-key-in-flight");

    service.kill9().await;
    assert!(lost.await.expect("no panic").is_err(), "its answer is lost");
    lock.rollback().await.expect("the lock is released");
    service.start().await;
    // The server may still finish the statement of the dead process: then that order is found, else one is made.
    let found = post_with_key(&service, "key", &order()).await.order();
    assert_eq!(post_with_key(&service, "key", &order()).await.order(), found);
    assert_eq!(rows(&pool).await, (1, 1, 1));
}

#[tokio::test]
async fn equal_keys_on_two_replicas_at_once_make_one_order() {
    let env = Env::new("orders").await;
    let one = env.start_service("order-api", &[]).await;
    let two = env.start_service("order-api", &[]).await;
    for round in 0..10 {
        let keys: Vec<String> = (0..20).map(|n| format!("round-{round}-key-{n}")).collect();
        let ask = |service: &testkit::Process, key: &str| {
            let request = request(service, Some(key), &order());
            tokio::spawn(async move { crate::support::Answer::of(request.send().await.expect("an answer")).await })
        };
        // In opposite orders: neither replica may lock the other out.
        let there: Vec<_> = keys.iter().map(|key| ask(&one, key)).collect();
        let back: Vec<_> = keys.iter().rev().map(|key| ask(&two, key)).collect();
        let mut orders = Vec::new();
        for answer in there {
            orders.push(answer.await.expect("no panic").order());
        }
        for (answer, order) in back.into_iter().rev().zip(&orders).rev() {
            assert_eq!(answer.await.expect("no panic").order(), *order);
        }
    }
    assert_eq!(rows(&env.pool("orders")).await, (200, 200, 200));
}

#[tokio::test]
async fn requests_without_a_key_are_orders_of_their_own() {
    let env = Env::new("orders").await;
    let service = env.start_service("order-api", &[]).await;
    assert_ne!(post(&service, &order()).await.order(), post(&service, &order()).await.order());
    let pool = env.pool("orders");
    assert_eq!(count(&pool, "SELECT count(*) FROM orders WHERE idempotency_key IS NULL").await, 2);
}
