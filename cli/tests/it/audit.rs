//! The audit finds what is wrong: for each invariant, a violation that nobody but a test would make.

use messaging::admin;
use orders::readers::readers;
use testkit::{Cluster, Env, wait_until};

use crate::stand::{SOON, assert_clean, audited, execute, judged, number, placed, record, violations};

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

/// I6: bytes that three groups have behind them, and that are in the dead letters of two.
async fn passed_over(env: &Env, cluster: &Cluster<'_>) {
    let kafka = env.kafka();
    let topic = kafka.topic("order.completed");
    let rubbish = record(&topic, None, Some(b"rubbish"), &[]);
    admin::produce(&kafka.bootstrap_servers, &topic, &[rubbish]).await.expect("sent");
    // Not reached yet is no violation.
    assert_clean(env).await;
    for group in readers("order.completed") {
        cluster.service(group).start().await;
        wait_until(&format!("{group} to have passed the rubbish"), SOON, async || {
            let (topics, group) = ([topic.clone()], kafka.group(group));
            let committed = admin::group_offsets(&kafka.bootstrap_servers, &group, &topics).await.expect("offsets");
            let ends = admin::offsets(&kafka.bootstrap_servers, &topic).await.expect("offsets");
            (0..).zip(&ends).all(|(partition, (first, next))| {
                committed.get(&(topic.clone(), partition)).is_some_and(|offset| offset == next) || first == next
            })
        })
        .await;
        cluster.service(group).stop().await;
    }
    // In the dead letters of all it is accounted for.
    assert_clean(env).await;
    let mut copies = env.read_topic("order.completed.dlq").await;
    assert_eq!(copies.len(), 3);
    let letters = kafka.topic("order.completed.dlq");
    admin::delete_topics(&kafka.bootstrap_servers, &[&letters]).await.expect("deleted");
    wait_until("the dead letters to be gone", SOON, async || {
        !admin::list_topics(&kafka.bootstrap_servers).await.expect("the topics").contains_key(&letters)
    })
    .await;
    assert_eq!(violations(&judged(env).await, "I6").len(), 3);
    env.create_topics(&["order.completed.dlq"], 4).await;
    copies.retain(|letter| letter.header("dlq-consumer-group") != Some("notification-svc"));
    admin::produce(&kafka.bootstrap_servers, &letters, &copies).await.expect("sent");
    let report = judged(env).await;
    let found = violations(&report, "I6");
    assert!(found.len() == 1 && found[0].contains("passed by notification-svc"), "{report}");
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

/// The audit says that `invariant` does not hold.
async fn names(env: &Env, invariant: &'static str) {
    let report = judged(env).await;
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
