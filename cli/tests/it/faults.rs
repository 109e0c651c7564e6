//! Faults by record on the compacted topic: each kind hits what it is aimed at, is counted, ends by itself, and costs no
//! order anything.

use chrono::{TimeDelta, Utc};
use messaging::{Record, admin};
use serde_json::{Value, json};
use testkit::{Cluster, Env, wait_until};
use uuid::Uuid;

use crate::stand::{SOON, assert_clean, impatient, placed};

/// Announces a fault that lasts `seconds` and gives its id.
async fn announce(env: &Env, target: Value, fault: Value, radius: Value, seconds: i64) -> Uuid {
    let id = Uuid::new_v4();
    let record = json!({
        "id": id,
        "target": target,
        "fault": fault,
        "blastRadius": radius,
        "seed": 42,
        "expiresAt": Utc::now() + TimeDelta::seconds(seconds),
    });
    publish(env, id, Some(record.to_string().into_bytes())).await;
    id
}

async fn publish(env: &Env, id: Uuid, payload: Option<Vec<u8>>) {
    let record = Record::unsent("chaos.faults", Some(id.to_string().into_bytes()), payload);
    let kafka = env.kafka();
    let topic = kafka.topic("chaos.faults");
    admin::produce(&kafka.bootstrap_servers, &topic, &[record]).await.expect("the fault is announced");
}

/// The text of `/metrics` of each instance of `service`.
async fn metrics(cluster: &Cluster<'_>, service: &str) -> String {
    let url = format!("{}/metrics", cluster.service(service).url());
    let answer = cluster.client().get(url).send().await.expect("an answer");
    answer.text().await.expect("text")
}

/// How often `fault` has hit in `service`.
async fn injected(cluster: &Cluster<'_>, service: &str, fault: Uuid) -> u64 {
    let id = fault.to_string();
    let text = metrics(cluster, service).await;
    let lines = text.lines().filter(|line| line.starts_with("chaos_injections_total{") && line.contains(&id));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

async fn active(cluster: &Cluster<'_>, service: &str) -> u64 {
    let text = metrics(cluster, service).await;
    let value = text.lines().find_map(|line| line.strip_prefix("chaos_active_faults "));
    value.map_or(0, |value| value.trim().parse().expect("a number"))
}

/// The order saga with two seconds for an attempt, so that what is lost is soon asked for again.
fn hasty(env: &Env) -> String {
    impatient(
        env,
        &[(
            "  deadline: 15s\n  attempts: 4\n  undo:\n    deadline: 15s",
            "  deadline: 2s\n  attempts: 8\n  undo:\n    deadline: 2s",
        )],
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_message_fault_hits_is_counted_and_costs_no_order_anything() {
    let env = Env::new("faults").await;
    let sagas = hasty(&env);
    let cluster = env
        .cluster()
        .set_all("CHAOS_ENABLED", "true")
        .set("orchestrator", "SAGAS_DIR", sagas)
        // An end event that is dropped is asked for again after three seconds instead of two minutes.
        .set("order-api", "RECONCILER_PENDING_AFTER_MS", 3_000)
        .set("order-api", "RECONCILER_INTERVAL_MS", 500)
        .set("order-api", "RECONCILER_MAX_INTERVAL_MS", 3_000)
        .start()
        .await;
    let share = |percentage: u32| json!({ "percentage": percentage });
    let faults = [
        ("payment-svc", None, json!({ "type": "latency", "duration": "300ms", "jitter": "100ms" }), share(20)),
        // Only what is about one step, and only by the header that says so.
        (
            "payment-svc",
            None,
            json!({ "type": "drop-message" }),
            json!({ "percentage": 20, "headers": { "ce_step": "payment" } }),
        ),
        // Later than its deadline: the answer comes after the command was sent again.
        ("shipping-svc", None, json!({ "type": "latency", "duration": "3s" }), json!({ "first": 1 })),
        ("inventory-svc", None, json!({ "type": "error", "kind": "transient", "attempts": 2 }), share(10)),
        (
            "payment-svc",
            Some("payment.requested"),
            json!({ "type": "error", "kind": "permanent" }),
            json!({ "first": 3 }),
        ),
        ("orchestrator", Some("inventory.reserved"), json!({ "type": "drop-message" }), share(20)),
        ("order-api", Some("order.completed"), json!({ "type": "drop-message" }), share(20)),
        ("orchestrator", Some("order.created"), json!({ "type": "drop-message" }), share(20)),
        ("shipping-svc", None, json!({ "type": "drop-reply" }), share(20)),
        ("orchestrator", Some("shipping.requested"), json!({ "type": "drop-reply" }), share(20)),
        ("*", None, json!({ "type": "duplicate", "copies": 2 }), share(50)),
        ("*", None, json!({ "type": "reorder" }), share(20)),
        ("payment-svc", None, json!({ "type": "corrupt", "part": "payload" }), share(10)),
        // Not what it hears of ends: nobody would send that again but an operator who finds it in the dead letters.
        ("inventory-svc", Some("inventory.requested"), json!({ "type": "corrupt", "part": "header" }), share(10)),
        ("shipping-svc", None, json!({ "type": "corrupt", "part": "key" }), share(10)),
        ("payment-svc", None, json!({ "type": "slow-consumer", "perMessage": "20ms" }), json!({})),
    ];
    for (service, topic, fault, radius) in faults {
        let mut target = json!({ "service": service });
        if let Some(topic) = topic {
            target["topic"] = json!(topic);
        }
        if service == "shipping-svc" && fault["type"] == "corrupt" {
            // Commands carry the name of their saga's definition; the replies that it sends do not.
            target["definition"] = json!("order");
            target["variant"] = json!("stable");
        }
        let asked = if service == "*" { "orchestrator" } else { service };
        let id = announce(&env, target, fault.clone(), radius, 60).await;
        wait_until(&format!("{asked} to obey {fault}"), SOON, async || active(&cluster, asked).await == 1).await;
        let summary = placed(&cluster, 100, 16, "declined=5,unserved=10").await;
        assert!(summary.is_complete(), "{service} {fault}: {summary}");
        let hit = injected(&cluster, asked, id).await;
        assert!(hit > 0, "{service} {fault} has hit nothing");
        println!("{service}: {fault} has hit {hit} messages");
        publish(&env, id, None).await;
        wait_until(&format!("{asked} to end {fault}"), SOON, async || active(&cluster, asked).await == 0).await;
    }
    assert_clean(&env).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_consumer_goes_on_when_its_fault_ends_and_a_lease_ends_by_itself() {
    let env = Env::new("leases").await;
    let mut cluster = env.cluster().set_all("CHAOS_ENABLED", "true").start().await;
    let payment = json!({ "service": "payment-svc" });
    announce(&env, payment.clone(), json!({ "type": "pause-consumer" }), json!({}), 20).await;
    // One that starts later learns of it too.
    let bad = json!({ "type": "slow-consumer", "perMessage": "100000000years" });
    let bad = announce(&env, json!({}), bad, json!({}), 600).await;
    publish(&env, Uuid::new_v4(), Some(b"\xff{".to_vec())).await;
    // It knows before its first message, and what nobody can obey hurts nobody.
    cluster.service_mut("payment-svc").restart().await;
    assert_eq!(active(&cluster, "payment-svc").await, 1);
    let log = cluster.service("payment-svc").log();
    let said = log.lines().filter(|line| line.contains("asks for too much") && line.contains(&bad.to_string()));
    assert!((1..=2).contains(&said.count()), "once in each of its lives: {log}");
    let order = cluster.place(&testkit::order()).await;
    // Nobody takes the fault back.
    assert_eq!(cluster.ended(order, SOON).await["status"], "COMPLETED");

    let id = announce(&env, payment, json!({ "type": "pause-consumer" }), json!({}), 600).await;
    wait_until("the fault to be known", SOON, async || active(&cluster, "payment-svc").await == 1).await;
    let order = cluster.place(&testkit::order()).await;
    wait_until("the order to wait", SOON, async || injected(&cluster, "payment-svc", id).await >= 1).await;
    assert_eq!(cluster.get("order-api", &format!("/api/orders/{order}")).await["status"], "PENDING");
    publish(&env, id, None).await;
    assert_eq!(cluster.ended(order, SOON).await["status"], "COMPLETED");
    assert_clean(&env).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_has_not_enabled_chaos_obeys_no_fault() {
    let env = Env::new("calm").await;
    let cluster = env.cluster().start().await;
    announce(&env, json!({}), json!({ "type": "pause-consumer" }), json!({}), 600).await;
    let order = cluster.place(&testkit::order()).await;
    assert_eq!(cluster.ended(order, SOON).await["status"], "COMPLETED");
    assert!(!metrics(&cluster, "payment-svc").await.contains("chaos_"));
}
