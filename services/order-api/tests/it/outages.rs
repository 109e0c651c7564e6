//! A database that is away is a 503, never a 202 without an order.

use std::time::Duration;

use sqlx::{PgPool, Postgres, Transaction};
use testkit::{Env, order, wait_until};

use crate::support::{Answer, Link, Traffic, count, get, post, post_with_key, request, rows};

const PATIENCE: Duration = Duration::from_secs(180);

#[tokio::test]
async fn a_database_that_is_down_is_a_503_until_it_is_back() {
    let env = Env::new("orders").await;
    let link = Link::to_database(&env).await;
    let settings = [("DATABASE_URL", &*link.url(&env)), ("DATABASE_ACQUIRE_TIMEOUT_MS", "500")];
    let service = env.start_service("order-api", &settings).await;
    let before = post(&service, &order()).await.order();

    link.set(Traffic::Cut);
    for answer in [
        post(&service, &order()).await,
        post_with_key(&service, "key", &order()).await,
        get(&service, &format!("/api/orders/{before}")).await,
        get(&service, "/api/orders").await,
        get(&service, &format!("/api/orders/{before}/events")).await,
    ] {
        assert_eq!((answer.status, answer.problem()), (503, "unavailable"));
        assert!(answer.says_when_to_retry());
    }

    link.set(Traffic::Flows);
    wait_until("orders are taken again", PATIENCE, async || {
        post_with_key(&service, "key", &order()).await.status == 202
    })
    .await;
    assert_eq!(get(&service, &format!("/api/orders/{before}")).await.status, 200);
    assert_eq!(rows(&env.pool("orders")).await, (2, 2, 2));
}

/// Holds back every order in the middle of its insert, when the statement has been sent for good. (A lock on the table
/// would hold it back while it is prepared.)
async fn hold_rows(pool: &PgPool) -> Transaction<'static, Postgres> {
    sqlx::raw_sql(
        "CREATE FUNCTION wait_for_the_test() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NEW; END';
         CREATE TRIGGER wait_for_the_test BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION wait_for_the_test();",
    )
    .execute(pool)
    .await
    .expect("a trigger");
    let mut lock = pool.begin().await.expect("a transaction");
    sqlx::query("SELECT pg_advisory_xact_lock(1)").execute(&mut *lock).await.expect("the lock");
    lock
}

/// Rule "Idempotency-Key".
#[tokio::test]
async fn an_outcome_that_is_unknown_is_a_503_and_the_same_key_finds_the_order() {
    let env = Env::new("orders").await;
    let link = Link::to_database(&env).await;
    let settings = [("DATABASE_URL", &*link.url(&env)), ("WRITER_TIMEOUT_MS", "3000")];
    let service = env.start_service("order-api", &settings).await;
    let pool = env.pool("orders");
    let lock = hold_rows(&pool).await;
    let asked = tokio::spawn(request(&service, Some("key"), &order()).send());
    let waiting = "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
                    WHERE datname = current_database() AND NOT granted AND locktype = 'advisory'";
    wait_until("the order is being inserted", PATIENCE, async || count(&pool, waiting).await == 1).await;
    link.set(Traffic::LosesAnswers);
    lock.rollback().await.expect("the lock is released");

    let unknown = Answer::of(asked.await.expect("no panic").expect("an answer")).await;
    assert_eq!((unknown.status, unknown.problem()), (503, "unavailable"));
    assert!(unknown.says_when_to_retry());
    wait_until("the order is durable all the same", PATIENCE, async || rows(&pool).await == (1, 1, 1)).await;

    // The connections that lost an answer are of no use any more.
    link.set(Traffic::Cut);
    link.set(Traffic::Flows);
    wait_until("the key is answered", PATIENCE, async || post_with_key(&service, "key", &order()).await.status == 202)
        .await;
    let stored: uuid::Uuid = sqlx::query_scalar("SELECT id FROM orders WHERE idempotency_key = 'key'")
        .fetch_one(&pool)
        .await
        .expect("the order");
    assert_eq!(post_with_key(&service, "key", &order()).await.order(), stored);
    assert_eq!(rows(&pool).await, (1, 1, 1));
}

#[tokio::test]
async fn connections_that_broke_while_idle_cost_no_request() {
    let env = Env::new("orders").await;
    let link = Link::to_database(&env).await;
    let service = env.start_service("order-api", &[("DATABASE_URL", &*link.url(&env))]).await;
    for _ in 0..3 {
        post(&service, &order()).await.order();
        link.set(Traffic::Cut);
        link.set(Traffic::Flows);
        post(&service, &order()).await.order();
    }
    assert_eq!(rows(&env.pool("orders")).await, (6, 6, 6));
}

#[tokio::test]
async fn orders_are_taken_while_kafka_is_away() {
    let env = Env::new("orders").await;
    let service = env.start_service("order-api", &[("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")]).await;
    post(&service, &order()).await.order();
}
