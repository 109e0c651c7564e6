//! The work that one order costs, counted by PostgreSQL and Kafka themselves, and the big run.

use std::collections::BTreeMap;
use testkit::{Cluster, Env, SERVICES, wait_until};

use crate::stand::{SOON, assert_all_ended_and_clean, impatient, number, placed};

/// The budget of an order that completes, with one item.
const ROW_WRITES: u64 = 26;
const MESSAGES: u64 = 8;
/// An order whose payment is declined: two messages to payment-svc and back, one in, one out.
const MESSAGES_DECLINED: u64 = 4;
/// An order that cannot be shipped: three steps, two undos, one in, one out.
const MESSAGES_UNSERVED: u64 = 12;
/// Far above what batches take (0.3 at most at full load; the figure is printed), and far below a transaction a message.
/// Commits of background work come by time, so a slow machine has more of them for each order.
const COMMITS: f64 = 1.0;

/// The signs of life of Debezium and of background work are counted apart.
const WRITES: &str = "\
SELECT relname::text, (n_tup_ins + n_tup_upd + n_tup_del)::bigint FROM pg_stat_user_tables
 WHERE relname NOT IN ('cdc_heartbeat', 'order_reconciler', 'outbox_partitions', '_sqlx_migrations')";
const XACT_COMMIT: &str = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()";

#[tokio::test(flavor = "multi_thread")]
async fn a_completed_order_stays_within_its_budget_of_rows_messages_and_events() {
    const ORDERS: u64 = 2_000;
    let env = Env::new("counts").await;
    let cluster = undisturbed(&env).await;
    let meter = Meter::start(&env).await;
    let summary = placed(&cluster, ORDERS, 64, "").await;
    assert_eq!(summary.statuses.get("COMPLETED"), Some(&ORDERS), "{summary}");
    let used = meter.stop(&cluster, ORDERS, ORDERS).await;
    assert!(used.writes <= ROW_WRITES * ORDERS, "{} row writes for {ORDERS} orders", used.writes);
    assert_eq!(used.events, ORDERS, "events by change data capture");
    assert_eq!(used.messages, MESSAGES * ORDERS, "messages on the saga's topics");
    assert_all_ended_and_clean(&cluster, &summary).await;
}

/// As many orders as the platform promises to bring to their ends, some of which cannot succeed.
#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_orders_from_64_clients_all_end_and_cost_what_they_may() {
    const ORDERS: u64 = 20_000;
    const DECLINED: u64 = ORDERS / 20;
    const UNSERVED: u64 = ORDERS / 10;
    const COMPLETED: u64 = ORDERS - DECLINED - UNSERVED;
    let env = Env::new("big-run").await;
    let cluster = undisturbed(&env).await;
    let meter = Meter::start(&env).await;
    let summary = placed(&cluster, ORDERS, 64, "declined=5,unserved=10").await;
    eprintln!("{summary}");
    let statuses = BTreeMap::from([("COMPLETED".into(), COMPLETED), ("CANCELLED".into(), DECLINED + UNSERVED)]);
    assert_eq!(summary.statuses, statuses, "{summary}");
    let used = meter.stop(&cluster, ORDERS, COMPLETED).await;
    assert!(used.writes <= ROW_WRITES * ORDERS, "{} row writes for {ORDERS} orders", used.writes);
    assert_eq!(used.events, ORDERS, "events by change data capture");
    let messages = MESSAGES * COMPLETED + MESSAGES_DECLINED * DECLINED + MESSAGES_UNSERVED * UNSERVED;
    assert_eq!(used.messages, messages, "messages on the saga's topics");
    let commits = used.commits as f64 / ORDERS as f64;
    assert!(commits <= COMMITS, "{commits:.3} commits an order, more than {COMMITS}");
    assert_all_ended_and_clean(&cluster, &summary).await;
}

/// All services, with so much patience that nothing is asked for again, however slow the machine is.
async fn undisturbed(env: &Env) -> Cluster<'_> {
    let sagas = impatient(env, &[("  deadline: 15s\n  attempts: 4", "  deadline: 10m\n  attempts: 4")]);
    let cluster = env.cluster().set("orchestrator", "SAGAS_DIR", sagas);
    cluster.set("order-api", "RECONCILER_PENDING_AFTER_MS", 600_000).start().await
}

/// Reads the counters before the work.
struct Meter<'e> {
    env: &'e Env,
    rows: BTreeMap<String, u64>,
    commits: u64,
}

/// What some orders cost.
struct Used {
    /// Rows inserted, updated and deleted.
    writes: u64,
    commits: u64,
    /// Messages on `order.created`.
    events: u64,
    /// Messages on all topics of the saga, the events among them.
    messages: u64,
}

impl<'e> Meter<'e> {
    async fn start(env: &'e Env) -> Self {
        Meter { env, rows: rows(env).await, commits: commits(env).await }
    }

    /// Waits until nothing of `orders`, of which so many `completed`, is left to do, stops the services, and tells
    /// what that took.
    async fn stop(self, cluster: &Cluster<'_>, orders: u64, completed: u64) -> Used {
        let env = self.env;
        let counts = [
            ("inventory", "SELECT sum(shipped)::bigint FROM stock", completed, "all goods to be shipped"),
            ("notification", "SELECT count(*) FROM notifications", orders, "everybody to be told"),
        ];
        for (database, sql, count, what) in counts {
            wait_until(what, SOON, async || number(env, database, sql).await.unsigned_abs() == count).await;
        }
        // A session tells its counts within a second of its last statement, or when it ends.
        let commits = commits(env).await - self.commits;
        cluster.stop_all().await;
        let mut after = rows(env).await;
        wait_until("the counts to be told", SOON, async || {
            let next = rows(env).await;
            let settled = next == after && next.get("orders.order_items").is_some_and(|items| *items >= orders);
            after = next;
            settled
        })
        .await;
        let mut writes = 0;
        for (table, count) in &after {
            let count = count - self.rows.get(table).copied().unwrap_or_default();
            writes += count;
            eprintln!("{table:<40} {:>8.3} row writes an order", count as f64 / orders as f64);
        }
        eprintln!("{:<40} {:>8.3} row writes an order", "all tables", writes as f64 / orders as f64);
        eprintln!("{:<40} {:>8.3} commits an order", "all databases", commits as f64 / orders as f64);
        let (mut events, mut messages) = (0, 0);
        for topic in orders::topics::ALL {
            let kafka = env.kafka();
            let offsets = messaging::admin::offsets(&kafka.bootstrap_servers, &kafka.topic(topic.name)).await;
            let count: i64 = offsets.expect("offsets").iter().map(|(_, next)| next).sum();
            messages += count.unsigned_abs();
            if topic.name == "order.created" {
                events = count.unsigned_abs();
            }
        }
        eprintln!("{:<40} {:>8.3} messages an order", "the saga's topics", messages as f64 / orders as f64);
        Used { writes, commits, events, messages }
    }
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
        commits += number(env, database, XACT_COMMIT).await.unsigned_abs();
    }
    commits
}
