//! The audit finds what is wrong: for each invariant, a violation that nobody but a test would make.

use messaging::{Record, admin};
use testkit::{Cluster, Env, wait_until};

use crate::stand::{SOON, assert_clean, audited, number, placed};

/// Something to break in a healthy stack, and how to mend it.
struct Plant {
    invariant: &'static str,
    database: &'static str,
    harm: &'static str,
    repair: &'static str,
}

/// By the superuser, past every right and check that the services are bound by.
const PLANTS: &[Plant] = &[
    Plant {
        invariant: "I1",
        database: "orders",
        harm: "UPDATE orders SET status = 'PENDING' WHERE id = (SELECT min(id::text)::uuid FROM orders WHERE status = 'COMPLETED')",
        repair: "UPDATE orders SET status = 'COMPLETED' WHERE status = 'PENDING'",
    },
    Plant {
        invariant: "I2",
        database: "orders",
        harm: "CREATE TABLE kept AS SELECT id, payload FROM order_outbox LIMIT 1;
               UPDATE order_outbox o SET payload = '{}' FROM kept k WHERE o.id = k.id",
        repair: "UPDATE order_outbox o SET payload = k.payload FROM kept k WHERE o.id = k.id; DROP TABLE kept",
    },
    Plant {
        invariant: "I3",
        database: "shipping",
        harm: "ALTER TABLE shipments DROP CONSTRAINT shipments_undo;
               UPDATE shipments SET state = 'CANCELLED' WHERE order_id =
                   (SELECT min(order_id::text)::uuid FROM shipments WHERE state = 'SCHEDULED')",
        repair: "UPDATE shipments SET state = 'SCHEDULED' WHERE state = 'CANCELLED'",
    },
    Plant {
        invariant: "I4",
        database: "inventory",
        harm: "ALTER TABLE stock DROP CONSTRAINT stock_is_conserved; UPDATE stock SET available = available - 1 WHERE sku = 'SKU-001'",
        repair: "UPDATE stock SET available = available + 1 WHERE sku = 'SKU-001'",
    },
    Plant {
        invariant: "I8",
        database: "orchestrator",
        harm: "UPDATE saga_timeline SET version = 9 WHERE (saga_id, version) =
                   (SELECT saga_id, version FROM saga_timeline WHERE version = 3 ORDER BY saga_id LIMIT 1)",
        repair: "UPDATE saga_timeline SET version = 3 WHERE version = 9",
    },
];

#[tokio::test(flavor = "multi_thread")]
async fn a_planted_violation_of_each_invariant_is_named() {
    let env = Env::new("audit").await;
    let cluster = env.cluster().start().await;
    let summary = placed(&cluster, 100, 16, "declined=5,unserved=10").await;
    assert!(summary.is_complete(), "{summary}");
    assert_clean(&env).await;
    // Nobody mends what is planted.
    cluster.stop_all().await;

    for plant in PLANTS {
        execute(&env, plant.database, plant.harm).await;
        names(&env, plant.invariant).await;
        execute(&env, plant.database, plant.repair).await;
    }

    // I5: the row of an acknowledged charge is gone, as if its commit had been lost.
    let lost = "CREATE TABLE lost AS SELECT * FROM shipments WHERE state = 'FAILED' LIMIT 1;
                DELETE FROM shipments s USING lost l WHERE s.order_id = l.order_id";
    execute(&env, "shipping", lost).await;
    names(&env, "I5").await;
    execute(&env, "shipping", "INSERT INTO shipments SELECT * FROM lost; DROP TABLE lost").await;
    assert_clean(&env).await;

    passed_over(&env, &cluster).await;
    changed(&env).await;
}

/// I6: bytes that the group has behind it and that are in no dead letter.
async fn passed_over(env: &Env, cluster: &Cluster<'_>) {
    let kafka = env.kafka();
    let (topic, group) = (kafka.topic("payment.requested"), kafka.group("payment-svc"));
    let rubbish = Record {
        topic: topic.clone(),
        partition: 0,
        offset: 0,
        timestamp_ms: None,
        key: None,
        payload: Some(b"rubbish".to_vec()),
        headers: Vec::new(),
    };
    admin::produce(&kafka.bootstrap_servers, &topic, &[rubbish]).await.expect("sent");
    // Not reached yet is no violation.
    assert_clean(env).await;
    cluster.service("payment-svc").start().await;
    wait_until("the rubbish to be dead-lettered", SOON, async || {
        let topics = [topic.clone()];
        let committed = admin::group_offsets(&kafka.bootstrap_servers, &group, &topics).await.expect("offsets");
        let ends = admin::offsets(&kafka.bootstrap_servers, &topic).await.expect("offsets");
        !env.read_topic("payment.requested.dlq").await.is_empty()
            && committed.values().sum::<i64>() == ends.iter().map(|(_, next)| next).sum::<i64>()
    })
    .await;
    cluster.service("payment-svc").stop().await;
    // In the dead letters it is accounted for.
    assert_clean(env).await;
    let letters = kafka.topic("payment.requested.dlq");
    admin::delete_topics(&kafka.bootstrap_servers, &[&letters]).await.expect("deleted");
    wait_until("the dead letters to be gone", SOON, async || {
        !admin::list_topics(&kafka.bootstrap_servers).await.expect("the topics").contains_key(&letters)
    })
    .await;
    names(env, "I6").await;
    env.create_topics(&["payment.requested.dlq"], 4).await;
}

/// I7: the same message again, with other bytes.
async fn changed(env: &Env) {
    let kafka = env.kafka();
    let mut messages = env.read_topic("shipping.scheduled").await;
    let mut message = messages.swap_remove(0);
    let mut value: serde_json::Value = message.json().expect("JSON");
    value["trackingCode"] = "another".into();
    message.payload = Some(value.to_string().into_bytes());
    admin::produce(&kafka.bootstrap_servers, &kafka.topic("shipping.scheduled"), &[message]).await.expect("sent");
    names(env, "I7").await;
}

async fn execute(env: &Env, database: &str, sql: &'static str) {
    let done = sqlx::raw_sql(sql).execute(&env.pool(database)).await;
    done.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// The audit says that `invariant` does not hold.
async fn names(env: &Env, invariant: &'static str) {
    let mut target = crate::stand::target(env);
    // Nothing is running: there is nothing to wait for.
    target.settle_within = std::time::Duration::ZERO;
    let report = symphony_cli::audit::audit(&target).await.expect("the audit can look");
    assert!(report.violated().contains(&invariant), "{invariant} is not named:\n{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_holds_under_load() {
    let env = Env::new("under-load").await;
    let cluster = env.cluster().start().await;
    let ended = "SELECT count(*) FROM orders WHERE status <> 'PENDING'";
    let audits = async {
        wait_until("the first ends", SOON, async || number(&env, "orders", ended).await > 50).await;
        (audited(&env).await, audited(&env).await)
    };
    let (summary, (first, second)) = tokio::join!(placed(&cluster, 3_000, 32, "declined=5,unserved=10"), audits);
    assert!(first.is_clean() && second.is_clean(), "{first}\n{second}");
    assert!(summary.is_complete(), "{summary}");
    assert_clean(&env).await;
}
