//! Replicas that freeze past their session and wake again, while orders come in all the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde_json::Value;
use testkit::{Cluster, Env, Process, order, order_with, wait_until};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::stand::{SOON, assert_clean, metric, number};

/// More than three times the session timeout.
const FREEZE: Duration = Duration::from_secs(20);
/// Clients that place orders, each at most one in [`PACE`]: a load that two cores bear with room to spare.
const CLIENTS: usize = 8;
const PACE: Duration = Duration::from_millis(150);

/// An order, and when it was answered 202.
struct Placed {
    at: Instant,
    id: Uuid,
}

/// Of twenty orders one is declined and two cannot be shipped.
fn nth(number: usize) -> Value {
    match number % 20 {
        3 => order_with("/payment/token", "tok_declined"),
        7 | 13 => order_with("/shipping/country", "AQ"),
        _ => order(),
    }
}

/// Places orders until `stop`, by all clients at the same time.
async fn place(cluster: &Cluster<'_>, stop: &Arc<AtomicBool>) -> Vec<Placed> {
    let url = format!("{}/api/orders", cluster.service("order-api").url());
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        clients.spawn(client(number, cluster.client().clone(), url.clone(), stop.clone()));
    }
    clients.join_all().await.into_iter().flatten().collect()
}

async fn client(number: usize, http: reqwest::Client, url: String, stop: Arc<AtomicBool>) -> Vec<Placed> {
    let mut pace = tokio::time::interval(PACE);
    let mut placed = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        pace.tick().await;
        let answer = http.post(&url).json(&nth(number + placed.len())).send().await.expect("order-api answers");
        assert_eq!(answer.status(), 202);
        let body: Value = answer.json().await.expect("JSON");
        let id = body["orderId"].as_str().and_then(|id| id.parse().ok()).expect("an orderId");
        placed.push(Placed { at: Instant::now(), id });
    }
    placed
}

async fn owned(replica: &Process) -> f64 {
    metric(replica, "messaging_owned_partitions").await
}

async fn consumed(replica: &Process) -> f64 {
    metric(replica, "messaging_consumed_messages_total").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_freezes_past_its_session_and_wakes_again_does_no_harm() {
    const ENDED: &str = "SELECT count(*) FROM orders WHERE status <> 'PENDING'";
    const OPEN: &str = "SELECT count(*) FROM orders WHERE status = 'PENDING' AND created_at < $1";
    let env = Env::new("freeze").await;
    let cluster = env.cluster().instances("orchestrator", 2).instances("payment-svc", 2).start().await;
    let pairs = ["orchestrator", "payment-svc"].map(|service| {
        let [awake, frozen] = cluster.instances(service) else { panic!("two of {service}") };
        (awake, frozen)
    });
    let stop = Arc::new(AtomicBool::new(false));
    let freeze = async {
        let mut all = Vec::new();
        for (awake, frozen) in pairs {
            // The assignor gives two replicas two of four partitions of each topic.
            wait_until("each replica to own half of the partitions", SOON, async || {
                let half = owned(awake).await;
                half > 0.0 && half == owned(frozen).await
            })
            .await;
            all.push(2.0 * owned(awake).await);
        }
        wait_until("orders end", SOON, async || number(&env, "orders", ENDED).await >= 100).await;
        for (_, frozen) in pairs {
            assert!(consumed(frozen).await > 0.0, "{} has work to be torn from", frozen.name());
            frozen.pause();
        }
        let frozen_at = Instant::now();
        for ((awake, frozen), &all) in pairs.iter().zip(&all) {
            wait_until(&format!("the partitions of {} to move", frozen.name()), SOON, async || {
                owned(awake).await >= all
            })
            .await;
        }
        let moved_at = Instant::now();
        // What was placed so far ends although half of the replicas are frozen.
        let pool = env.pool("orders");
        let now: DateTime<Utc> = sqlx::query_scalar("SELECT now()").fetch_one(&pool).await.expect("a time");
        wait_until("the others to do the work", SOON, async || {
            let open = sqlx::query_scalar::<_, i64>(OPEN).bind(now).fetch_one(&pool).await.expect("a count");
            open == 0
        })
        .await;
        tokio::time::sleep_until((frozen_at + FREEZE).into()).await;
        for (_, frozen) in pairs {
            frozen.resume();
        }
        let woken_at = Instant::now();
        for ((awake, frozen), &all) in pairs.iter().zip(&all) {
            wait_until(&format!("{} to own partitions again", frozen.name()), SOON, async || {
                owned(awake).await < all && owned(frozen).await > 0.0
            })
            .await;
            let before = consumed(frozen).await;
            wait_until(&format!("{} to work again", frozen.name()), SOON, async || consumed(frozen).await > before)
                .await;
        }
        stop.store(true, Ordering::Relaxed);
        (frozen_at, moved_at, woken_at)
    };
    let (placed, (frozen_at, moved_at, woken_at)) = tokio::join!(place(&cluster, &stop), freeze);

    let between = |from: Instant, to: Instant| placed.iter().filter(|order| from <= order.at && order.at < to).count();
    let counts = [
        placed.iter().filter(|order| order.at < frozen_at).count(),
        between(frozen_at, moved_at),
        between(moved_at, woken_at),
        placed.iter().filter(|order| order.at >= woken_at).count(),
    ];
    eprintln!("orders before the freeze, until the partitions moved, until the awakening, after it: {counts:?}");
    assert!(counts.iter().all(|count| *count > 0), "the load did not run all the time: {counts:?}");
    for order in &placed {
        let status = cluster.ended(order.id, SOON).await["status"].clone();
        assert!(status == "COMPLETED" || status == "CANCELLED", "{} is {status}", order.id);
    }
    assert_clean(&env).await;
}
