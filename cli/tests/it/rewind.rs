//! Every message delivered a second time.

use orders::readers::READERS;
use std::collections::BTreeMap;
use testkit::{Env, SERVICES, wait_until};

use crate::stand::{SOON, assert_all_ended_and_clean, assert_clean, placed};

/// Tables that tell the time and nothing else.
const CLOCKS: &[&str] = &["cdc_heartbeat", "order_reconciler", "_sqlx_migrations"];
const TABLES: &str = "\
SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND NOT c.relispartition ORDER BY 1";

#[tokio::test(flavor = "multi_thread")]
async fn rewinding_every_consumer_group_changes_no_table() {
    let env = Env::new("rewind").await;
    let cluster = env.cluster().start().await;
    let summary = placed(&cluster, 500, 32, "declined=5,unserved=10,unknown=5").await;
    assert_all_ended_and_clean(&cluster, &summary).await;
    wait_until("every group to have read all", SOON, async || lag(&env).await == 0).await;
    cluster.stop_all().await;
    let before = hashes(&env).await;

    for (group, topics) in READERS {
        let kafka = env.kafka();
        let topics: Vec<String> = topics.iter().map(|topic| kafka.topic(topic.name)).collect();
        let rewound = messaging::admin::rewind_group(&kafka.bootstrap_servers, &kafka.group(group), &topics).await;
        rewound.unwrap_or_else(|error| panic!("{group}, whose members have left: {error}"));
    }
    assert!(lag(&env).await >= 500 * 8, "everything is to be read again");
    cluster.revive().await;
    wait_until("every group to have read all again", SOON, async || lag(&env).await == 0).await;
    cluster.stop_all().await;

    let after = hashes(&env).await;
    for (table, hash) in &before {
        assert_eq!(after.get(table), Some(hash), "{table} has changed");
    }
    assert_clean(&env).await;
}

/// How many messages no group has behind it yet, over all of them.
async fn lag(env: &Env) -> i64 {
    let kafka = env.kafka();
    let mut lag = 0;
    for (group, topics) in READERS {
        let topics: Vec<String> = topics.iter().map(|topic| kafka.topic(topic.name)).collect();
        let group = kafka.group(group);
        let committed =
            messaging::admin::group_offsets(&kafka.bootstrap_servers, &group, &topics).await.expect("offsets");
        for topic in &topics {
            let ends = messaging::admin::offsets(&kafka.bootstrap_servers, topic).await.expect("offsets");
            for (partition, (first, next)) in (0..).zip(ends) {
                lag += next - committed.get(&(topic.clone(), partition)).copied().unwrap_or(first).max(first);
            }
        }
    }
    lag
}

/// A hash over every row of every table, by `database.table`.
async fn hashes(env: &Env) -> BTreeMap<String, String> {
    let mut hashes = BTreeMap::new();
    for (_, database) in SERVICES {
        let pool = env.pool(database);
        let tables: Vec<String> = sqlx::query_scalar(TABLES).fetch_all(&pool).await.expect("the tables");
        for table in tables.iter().filter(|table| !CLOCKS.contains(&table.as_str())) {
            let sql = format!("SELECT coalesce(md5(string_agg(t::text, '|' ORDER BY t::text)), '') FROM {table} t");
            let hash = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&pool).await.expect("a hash");
            hashes.insert(format!("{database}.{table}"), hash);
        }
    }
    hashes
}
