//! Partitions of the outbox are made ahead, and dropped only when old, confirmed, and needed by no pending order.

use sqlx::PgPool;
use testkit::{Env, order, wait_until};

use crate::support::{count, post};

/// An outbox of three old days, 2020-01-01 to 2020-01-03, each with a row, and a slot that has confirmed nothing of them.
async fn old_days(env: &Env) -> (PgPool, String) {
    env.create_database("orders").await;
    let pool = env.pool("orders");
    create(&pool, "2020-01-01", 2).await;
    sqlx::query(
        "INSERT INTO order_outbox (id, aggregatetype, aggregateid, type, payload, source, time, sagaid, created_at)
         SELECT gen_random_uuid(), 'order.created', gen_random_uuid()::text, 't', '{}', 's', 't', 's',
                timestamptz '2020-01-01 12:00:00+00' + day * interval '1 day' FROM generate_series(0, 2) AS day",
    )
    .execute(&pool)
    .await
    .expect("rows");
    let slot = format!("{}slot", env.prefix());
    sqlx::query("SELECT pg_create_logical_replication_slot($1, 'pgoutput')")
        .bind(&slot)
        .execute(&pool)
        .await
        .expect("a slot");
    // What comes now is not confirmed by the slot yet.
    sqlx::query("UPDATE order_reconciler SET scanned_through = now()").execute(&pool).await.expect("a reconciler");
    (pool, slot)
}

async fn create(pool: &PgPool, today: &str, days_ahead: i32) -> i32 {
    sqlx::query_scalar("SELECT outbox_create_partitions($1::date, $2)")
        .bind(today)
        .bind(days_ahead)
        .fetch_one(pool)
        .await
        .expect("partitions")
}

async fn drop_old(pool: &PgPool, today: &str) -> i32 {
    sqlx::query_scalar("SELECT outbox_drop_partitions($1::date, 8)").bind(today).fetch_one(pool).await.expect("a drop")
}

async fn confirm(pool: &PgPool, slot: &str) {
    sqlx::query("SELECT pg_replication_slot_advance($1, pg_current_wal_lsn())")
        .bind(slot)
        .execute(pool)
        .await
        .expect("an advanced slot");
}

#[tokio::test]
async fn a_partition_is_dropped_when_it_is_old_and_confirmed_and_not_before() {
    let env = Env::bare("orders");
    let (pool, slot) = old_days(&env).await;
    let rows = async || count(&pool, "SELECT count(*) FROM order_outbox WHERE created_at < '2020-02-01'").await;
    assert_eq!(drop_old(&pool, "2020-01-20").await, 0, "the slot has not confirmed them");
    confirm(&pool, &slot).await;
    assert_eq!(drop_old(&pool, "2020-01-09").await, 0, "the first is 7 days old");
    assert_eq!(drop_old(&pool, "2020-01-10").await, 1, "the first is 8 days old");
    assert_eq!(rows().await, 2);
    assert_eq!(drop_old(&pool, "2020-01-20").await, 2);
    assert_eq!(rows().await, 0);
    sqlx::query("SELECT pg_drop_replication_slot($1)").bind(&slot).execute(&pool).await.expect("no slot");
}

#[tokio::test]
async fn without_a_slot_or_with_a_pending_order_nothing_is_dropped() {
    let env = Env::bare("orders");
    let (pool, slot) = old_days(&env).await;
    assert_eq!(drop_old(&pool, "2020-01-20").await, 0);
    confirm(&pool, &slot).await;
    let straggler = "INSERT INTO order_stragglers (order_id, created_at, emitted_at, due_at)
                     VALUES (gen_random_uuid(), '2020-01-01 12:00+00', $1::timestamptz, now())";
    sqlx::query(straggler).bind("2020-01-01 13:00+00").execute(&pool).await.expect("a straggler");
    assert_eq!(drop_old(&pool, "2020-01-20").await, 0, "the only row of a pending order is in the first");

    sqlx::query("UPDATE order_stragglers SET emitted_at = now()").execute(&pool).await.expect("published again");
    sqlx::query("UPDATE order_reconciler SET scanned_through = '2020-01-02 12:00+00'").execute(&pool).await.expect("");
    assert_eq!(drop_old(&pool, "2020-01-20").await, 1, "the reconciler has not looked at the second day to its end");
    sqlx::query("UPDATE order_reconciler SET scanned_through = now()").execute(&pool).await.expect("a reconciler");
    sqlx::query("SELECT pg_drop_replication_slot($1)").bind(&slot).execute(&pool).await.expect("no slot");
    assert_eq!(drop_old(&pool, "2020-01-20").await, 0, "nobody reads the outbox");
}

#[tokio::test]
async fn the_only_row_of_an_open_order_is_kept_whether_it_is_pending_or_parked() {
    let env = Env::bare("orders");
    let (pool, slot) = old_days(&env).await;
    assert_eq!(drop_old(&pool, "2020-01-20").await, 0, "the slot has not confirmed them");
    confirm(&pool, &slot).await;
    // Two days hold the row of one open order each, the third that of an order that has ended.
    for (day, status) in [("2020-01-01", "PENDING"), ("2020-01-02", "PARKED"), ("2020-01-03", "COMPLETED")] {
        sqlx::query(
            "INSERT INTO orders (id, customer_id, status, total_minor, currency, created_at)
             SELECT gen_random_uuid(), 'c', $2, 1, 'EUR', $1::date + time '12:00' AT TIME ZONE 'UTC'",
        )
        .bind(day)
        .bind(status)
        .execute(&pool)
        .await
        .expect("an order");
    }
    let naming = "UPDATE order_outbox SET aggregateid = orders.id::text FROM orders
                   WHERE order_outbox.created_at::date = orders.created_at::date";
    sqlx::query(naming).execute(&pool).await.expect("their rows");
    let from = chrono::DateTime::UNIX_EPOCH;
    sqlx::query(statement("FIND_STRAGGLERS")).bind(from).bind(chrono::Utc::now()).execute(&pool).await.expect("a look");
    assert_eq!(drop_old(&pool, "2020-01-20").await, 0, "an open order came on the first day");
    let ended = "UPDATE orders SET status = 'CANCELLED' WHERE status = 'PENDING'";
    sqlx::query(ended).execute(&pool).await.expect("the first has ended");
    sqlx::query("DELETE FROM order_stragglers USING orders WHERE id = order_id AND status = 'CANCELLED'")
        .execute(&pool)
        .await
        .expect("it is forgotten");
    assert_eq!(drop_old(&pool, "2020-01-20").await, 1, "the parked one came on the second day");

    let wait = sqlx::postgres::types::PgInterval { months: 0, days: 0, microseconds: 1_000_000 };
    let reemit = sqlx::query(statement("REEMIT")).bind(10_i64).bind(wait).bind(wait);
    reemit.execute(&pool).await.expect("it is published again");
    assert_eq!(drop_old(&pool, "2020-01-20").await, 2, "it has a newer row");
    assert_eq!(count(&pool, "SELECT count(*) FROM order_outbox").await, 1);
    assert_eq!(count(&pool, "SELECT count(*) FROM order_stragglers").await, 1, "it is still open");
    sqlx::query("SELECT pg_drop_replication_slot($1)").bind(&slot).execute(&pool).await.expect("no slot");
}

fn statement(name: &str) -> &'static str {
    order_api::STATEMENTS.iter().find(|(known, _)| *known == name).expect("a statement").1
}

#[tokio::test]
async fn rows_of_days_without_a_partition_are_kept_and_get_one() {
    let env = Env::bare("orders");
    env.create_database("orders").await;
    let pool = env.pool("orders");
    assert_eq!(create(&pool, "2020-01-01", 1).await, 2);
    assert_eq!(create(&pool, "2020-01-01", 1).await, 0, "they are there");
    // Nobody made partitions for three days.
    sqlx::query(
        "INSERT INTO order_outbox (id, aggregatetype, aggregateid, type, payload, source, time, sagaid, created_at)
         SELECT gen_random_uuid(), 'order.created', n::text, 't', '{}', 's', 't', 's',
                timestamptz '2020-01-03 00:00:00+00' + n * interval '1 hour' FROM generate_series(0, 60) AS n",
    )
    .execute(&pool)
    .await
    .expect("rows are taken all the same");
    let in_default = async || count(&pool, "SELECT count(*) FROM order_outbox_default").await;
    assert_eq!(in_default().await, 61);
    assert_eq!(create(&pool, "2020-01-05", 1).await, 2, "one for the three days, one for the next");
    assert_eq!(in_default().await, 0);
    assert_eq!(count(&pool, "SELECT count(*) FROM order_outbox").await, 61);
    let days = "SELECT count(*) FROM outbox_partitions WHERE from_day = '2020-01-03' AND to_day = '2020-01-06'";
    assert_eq!(count(&pool, days).await, 1);
}

#[tokio::test]
async fn the_service_maintains_the_outbox_with_no_right_to_change_tables() {
    let env = Env::new("orders").await;
    let pool = env.pool("orders");
    let ahead = "SELECT count(*) FROM outbox_partitions WHERE from_day > (now() AT TIME ZONE 'UTC')::date";
    let service = env.start_service("order-api", &[("OUTBOX_DAYS_AHEAD", "12")]).await;
    wait_until("partitions are made ahead", std::time::Duration::from_secs(180), async || {
        count(&pool, ahead).await >= 12
    })
    .await;
    post(&service, &order()).await.order();
    assert_eq!(count(&pool, "SELECT count(*) FROM order_outbox_default").await, 0);

    let role = env.role_pool("orders");
    for forbidden in [
        "DROP TABLE order_outbox_default",
        "SELECT outbox_drop_partitions('2999-01-01', 8)",
        "SELECT outbox_maintain(1, 7)",
        "DELETE FROM order_outbox",
        "UPDATE order_outbox SET payload = ''",
        "UPDATE orders SET total_minor = 1",
        "DELETE FROM orders",
    ] {
        assert!(sqlx::query(forbidden).execute(&role).await.is_err(), "{forbidden}");
    }
}
