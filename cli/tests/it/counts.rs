//! The work that one order costs, counted by PostgreSQL and Kafka themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use testkit::{Env, SERVICES, wait_until};

use crate::stand::{assert_all_ended_and_clean, placed};

/// Orders of one measurement. A number that divides into whole batches is not needed: what is counted is per order.
const ORDERS: u64 = 2_000;
/// The budget of an order that completes, with one item.
const ROW_WRITES: u64 = 26;
const MESSAGES: u64 = 8;

/// The signs of life of Debezium and of background work are counted apart.
const WRITES: &str = "\
SELECT relname::text, (n_tup_ins + n_tup_upd + n_tup_del)::bigint FROM pg_stat_user_tables
 WHERE relname NOT IN ('cdc_heartbeat', 'order_reconciler', 'outbox_partitions', '_sqlx_migrations')";
const COMMITS: &str = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()";

#[tokio::test(flavor = "multi_thread")]
async fn a_completed_order_stays_within_its_budget_of_rows_messages_and_events() {
    let env = Env::new("counts").await;
    let cluster = env.cluster().start().await;
    let (rows_before, commits_before) = (rows(&env).await, commits(&env).await);
    let summary = placed(&cluster, ORDERS, 64, "").await;
    assert_eq!(summary.statuses.get("COMPLETED"), Some(&ORDERS), "{summary}");
    let shipped = "SELECT sum(shipped)::bigint FROM stock";
    wait_until("all goods to be shipped", Duration::from_secs(60), async || {
        crate::stand::number(&env, "inventory", shipped).await == i64::try_from(ORDERS).expect("a small number")
    })
    .await;
    let told = "SELECT count(*) FROM notifications";
    wait_until("everybody to be told", Duration::from_secs(60), async || {
        crate::stand::number(&env, "notification", told).await == i64::try_from(ORDERS).expect("a small number")
    })
    .await;

    // A session tells its counts within a second of its last statement, or when it ends.
    let commits = commits(&env).await - commits_before;
    cluster.stop_all().await;
    let mut rows_after = rows(&env).await;
    wait_until("the counts to be told", Duration::from_secs(10), async || {
        let next = rows(&env).await;
        let settled = next == rows_after && next.get("orders.order_items").is_some_and(|items| *items >= ORDERS);
        rows_after = next;
        settled
    })
    .await;
    let mut writes = 0;
    for (table, count) in &rows_after {
        let count = count - rows_before.get(table).copied().unwrap_or_default();
        writes += count;
        eprintln!("{table:<40} {:>8.3} row writes an order", count as f64 / ORDERS as f64);
    }
    eprintln!("{:<40} {:>8.3} commits an order", "all databases", commits as f64 / ORDERS as f64);
    assert!(writes <= ROW_WRITES * ORDERS, "{writes} row writes for {ORDERS} orders, more than {ROW_WRITES} each");

    let mut messages = 0;
    for topic in orders::topics::ALL {
        let kafka = env.kafka();
        let offsets = messaging::admin::offsets(&kafka.bootstrap_servers, &kafka.topic(topic.name)).await;
        let count: i64 = offsets.expect("offsets").iter().map(|(_, next)| next).sum();
        if topic.name == "order.created" {
            assert_eq!(count.unsigned_abs(), ORDERS, "events by change data capture");
        }
        messages += count.unsigned_abs();
    }
    assert_eq!(messages, MESSAGES * ORDERS, "messages on the saga's topics");
    assert_all_ended_and_clean(&cluster, &summary).await;
}

/// Row writes of every table, by `database.table`; partitions of the outbox are one table.
async fn rows(env: &Env) -> BTreeMap<String, u64> {
    let mut rows = BTreeMap::new();
    for (_, database) in SERVICES {
        let counts: Vec<(String, i64)> =
            sqlx::query_as(WRITES).fetch_all(&env.pool(database)).await.expect("the statistics");
        for (table, count) in counts {
            let table = if table.starts_with("order_outbox") { "order_outbox" } else { &table };
            *rows.entry(format!("{database}.{table}")).or_default() += count.unsigned_abs();
        }
    }
    rows
}

async fn commits(env: &Env) -> u64 {
    let mut commits = 0;
    for (_, database) in SERVICES {
        commits += crate::stand::number(env, database, COMMITS).await.unsigned_abs();
    }
    commits
}
