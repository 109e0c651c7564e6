//! Processes that kill themselves at the worst moments: each consumer, the timers and the operators' verbs at each of
//! their points (`crates/messaging/src/failpoint.rs` lists them).
//!
//! | | before the commit | after it | after k of n acks | before the offsets |
//! |---|---|---|---|---|
//! | consumers that answer | here | here | here, k = 1 and 2 | here |
//! | consumers that only write: order-api, notification-svc, dlq-admin | here | here | they send nothing | here |
//! | the timer loop | here | here | here, k = 1 and 2 | here: it settles rows as others commit offsets |
//! | retry, compensate, resolve | here | here | here, several at once: the timer loop sends what a verb left | here, likewise |
//! | slow answers of payment-svc | `payment-svc/tests/it/slow.rs`: it is one statement | likewise | as a batch's | likewise |
//! | replays and campaigns of dlq-admin | `dlq-admin/tests/it/crashes.rs` | likewise | it marks what was acknowledged only after all | likewise |

use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::join_all;
use messaging::admin;
use serde_json::{Value, json};
use testkit::{Cluster, Env, SERVICES, order, wait_until};
use uuid::Uuid;

use crate::stand::{SOON, assert_all_ended_and_clean, assert_clean, impatient, number, placed, record, supervised};

/// The services that send messages; the others only write.
const SENDERS: &[&str] = &["orchestrator", "payment-svc", "inventory-svc", "shipping-svc"];

/// The services whose transactions are open between two statements under a load. All others write a batch in one
/// statement, and shipping-svc does unless it cancels, which a test of its own has.
const TRANSACTIONS: &[&str] = &["payment-svc", "inventory-svc"];

/// Arms `point` in `service` from its next start on. The file shows that it was reached, and keeps it from being
/// reached again.
fn arm(cluster: &mut Cluster<'_>, service: &str, point: &str) -> PathBuf {
    let name = point.replace(['@', ':'], "-");
    let fired = cluster.env().dir().join(format!("{service}-{name}.fired"));
    let process = cluster.service_mut(service);
    process.set_env("FAILPOINT", point);
    process.set_env("FAILPOINT_FIRED", &fired.display().to_string());
    fired
}

#[tokio::test(flavor = "multi_thread")]
async fn every_consumer_survives_a_death_at_each_point_of_its_batch() {
    let env = Env::new("failpoints").await;
    let mut cluster = env.cluster().start().await;
    let all: Vec<&str> = SERVICES.iter().map(|(service, _)| *service).collect();
    let kafka = env.kafka();
    let (poisoned, poison) = ("payment.requested", record("payment.requested", None, Some(b"no key"), &[]));
    for (point, part, services) in [
        ("before-commit", "", all.as_slice()),
        ("in-transaction", "", TRANSACTIONS),
        ("after-commit", "", all.as_slice()),
        // Of a batch that has more: the first acknowledgement, and a later one.
        ("after-acks", ":1", SENDERS),
        ("after-acks", ":2", SENDERS),
        ("before-offsets", "", all.as_slice()),
    ] {
        cluster.stop_all().await;
        // A consumer group has the name of its service: the point is passed by the consumer and by nothing else.
        let scoped = services.iter().map(|service| arm(&mut cluster, service, &format!("{point}@{service}{part}")));
        let fired: Vec<PathBuf> = scoped.collect();
        cluster.revive().await;
        let work = async {
            // What dlq-admin reads is what others could not.
            let topic = kafka.topic(poisoned);
            admin::produce(&kafka.bootstrap_servers, &topic, std::slice::from_ref(&poison))
                .await
                .expect("poison is sent");
            let summary = placed(&cluster, 200, 32, "declined=5,unserved=10,unknown=5").await;
            // Who only listens to ends may come to it after the last one.
            for (service, fired) in services.iter().zip(&fired) {
                wait_until(&format!("{service} to come to {point}{part}"), SOON, async || fired.exists()).await;
            }
            summary
        };
        let (summary, _) = supervised(&cluster, work).await;
        // One that died with the last order is still to be started again.
        cluster.revive().await;
        assert_all_ended_and_clean(&cluster, &summary).await;
    }
}

/// Patience in tenths of a second, so that a saga whose shipping does not answer is soon parked.
fn hasty(env: &Env) -> String {
    impatient(
        env,
        &[(
            "  deadline: 15s\n  attempts: 4\n  undo:\n    deadline: 15s\n    attempts: 20\n    backoff: 1s\n    maxBackoff: 5m",
            "  deadline: 500ms\n  attempts: 2\n  undo:\n    deadline: 500ms\n    attempts: 2\n    backoff: 100ms\n    maxBackoff: 1s",
        )],
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_timer_loop_survives_a_death_at_each_of_its_points() {
    let env = Env::new("timers").await;
    let sagas = hasty(&env);
    let mut cluster = env.cluster().set("orchestrator", "SAGAS_DIR", sagas).start().await;
    let points = [
        "timer-before-commit",
        "timer-after-commit",
        "timer-after-acks:1",
        "timer-after-acks:2",
        "timer-before-settle",
    ];
    for point in points {
        cluster.service("orchestrator").stop().await;
        let fired = arm(&mut cluster, "orchestrator", point);
        cluster.service("orchestrator").start().await;
        cluster.service("shipping-svc").pause();
        // At once, so that timers of several sagas are due together: each has one message to send.
        let body = order();
        let orders = join_all((0..10).map(|_| cluster.place(&body))).await;
        wait_until(&format!("the orchestrator to come to {point}"), SOON, async || fired.exists()).await;
        cluster.service("orchestrator").wait_exit(SOON).await;
        cluster.service("orchestrator").start().await;
        // Every deadline passes, those of the undos too.
        for id in &orders {
            reaches(&cluster, *id, "PARKED").await;
        }
        cluster.service("shipping-svc").resume();
        for id in orders {
            wait_until(&format!("order {id} to be cancelled after {point}"), SOON, async || {
                cluster.get("order-api", &format!("/api/orders/{id}")).await["status"] == "CANCELLED"
            })
            .await;
        }
    }
    assert_clean(&env).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_operator_verb_survives_a_death_at_each_point_of_what_it_does() {
    let env = Env::new("verbs").await;
    let sagas = hasty(&env);
    let mut cluster = env.cluster().set("orchestrator", "SAGAS_DIR", sagas).start().await;
    // Shipping neither ships nor cancels, so every saga ends up parked.
    cluster.service("shipping-svc").pause();
    let resolution = json!({ "outcome": "CANCELLED", "reason": "the carrier is gone" });
    let mut acted = Vec::new();
    // A verb leaves one message to the timer loop, so of some only several verbs at once have sent a part.
    for (point, several) in
        [("verb-before-commit", 1), ("verb-after-commit", 1), ("timer-after-acks:1", 6), ("timer-before-settle", 1)]
    {
        for (verb, body) in [("retry", json!({})), ("compensate", json!({})), ("resolve", resolution.clone())] {
            let order = order();
            let ids = join_all((0..several).map(|_| cluster.place(&order))).await;
            for id in &ids {
                reaches(&cluster, *id, "PARKED").await;
            }
            // Those that were acted on before have to rest too: their timers pass the same points.
            wait_until("every saga to rest", SOON, async || number(&env, "orchestrator", MOVING).await == 0).await;
            cluster.service("orchestrator").stop().await;
            let scope = if point.starts_with("verb") { format!("@{verb}") } else { String::new() };
            let fired = arm(&mut cluster, "orchestrator", &format!("{point}{scope}"));
            // One file a cell: the name of the point alone says not which verb it was.
            let _ = std::fs::remove_file(&fired);
            cluster.service("orchestrator").start().await;

            let answers = join_all(ids.iter().map(|id| act(&cluster, *id, verb, &body))).await;
            wait_until(&format!("{verb} to come to {point}"), SOON, async || fired.exists()).await;
            cluster.service("orchestrator").wait_exit(SOON).await;
            cluster.service("orchestrator").start().await;
            for (id, answer) in ids.into_iter().zip(answers) {
                match answer {
                    Ok(status) => assert_eq!((status, scope.as_str()), (200, ""), "{verb} at {point}"),
                    // It never happened, so the operator does it again.
                    Err(_) if point == "verb-before-commit" => {
                        assert_eq!(act(&cluster, id, verb, &body).await.expect("an answer"), 200, "{verb}");
                    }
                    // It has happened, or the process was gone before it came to that.
                    Err(_) => {
                        let status = act(&cluster, id, verb, &body).await.expect("an answer");
                        assert!([200, 409].contains(&status), "{verb} at {point}: {status}");
                    }
                }
                acted.push((id, verb));
            }
        }
    }
    cluster.service("shipping-svc").resume();
    for (id, verb) in &acted {
        reaches(&cluster, *id, "COMPENSATED").await;
        wait_until(&format!("order {id} to know of {verb}"), SOON, async || {
            cluster.get("order-api", &format!("/api/orders/{id}")).await["status"] == "CANCELLED"
        })
        .await;
    }
    let report = crate::stand::audited(&env).await;
    assert!(report.is_clean(), "{report}");
    let resolved: Vec<Uuid> = acted.iter().filter(|(_, verb)| *verb == "resolve").map(|(id, _)| *id).collect();
    let all_resolved = resolved.iter().all(|id| report.resolved.contains(id));
    assert!(all_resolved && report.resolved.len() == resolved.len(), "{report}");
}

/// Sagas that are neither at their end nor parked.
const MOVING: &str = "SELECT count(*) FROM saga WHERE state IN ('RUNNING', 'COMPENSATING')";

/// The status that answers `verb`, or the error when the connection broke.
async fn act(cluster: &Cluster<'_>, id: Uuid, verb: &str, body: &Value) -> reqwest::Result<u16> {
    let url = format!("{}/api/sagas/{id}/{verb}", cluster.service("orchestrator").url());
    let request = cluster.client().post(url).timeout(Duration::from_secs(20)).json(body);
    Ok(request.send().await?.status().as_u16())
}

async fn reaches(cluster: &Cluster<'_>, id: Uuid, state: &str) {
    let url = format!("{}/api/sagas/{id}", cluster.service("orchestrator").url());
    wait_until(&format!("saga {id} to be {state}"), SOON, async || {
        // Before its trigger has arrived there is no such saga.
        let answer = cluster.client().get(&url).send().await.expect("an answer");
        answer.status().is_success() && answer.json::<Value>().await.expect("JSON")["state"] == state
    })
    .await;
}
