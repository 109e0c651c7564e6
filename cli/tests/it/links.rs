//! Networks that fail between the services, Connect, PostgreSQL and Kafka, while orders come in.

use std::time::Duration;

use rand::seq::SliceRandom;
use serde_json::json;
use testkit::{Cluster, Env, FaultProxy, LinkedServers, SERVICES, wait_until};

use crate::stand::{SOON, assert_all_ended_and_clean, number, place_for_servers, placed, under_load};

const MIX: &str = "declined=5,unserved=10";

/// How long a link is cut.
const CUT: Duration = Duration::from_secs(10);

/// Waits until so many orders have ended: the load is in full swing.
async fn ended(env: &Env, count: i64) {
    let ended = "SELECT count(*) FROM orders WHERE status <> 'PENDING'";
    wait_until("orders to end", SOON, async || number(env, "orders", ended).await >= count).await;
}

/// A proxy before PostgreSQL for each service, by the service's name.
async fn through_proxies<'e>(env: &'e Env, faults: &FaultProxy) -> testkit::ClusterBuilder<'e> {
    let postgres = format!("127.0.0.1:{}", env.servers().postgres);
    let mut cluster = env.cluster();
    for (service, database) in SERVICES {
        let address = faults.create(service, &postgres).await;
        cluster = cluster.set(service, "DATABASE_URL", env.database_url_at(database, address));
    }
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn a_black_hole_between_payment_and_its_database_is_outlived_by_every_order() {
    let env = Env::new("black-hole").await;
    let faults = FaultProxy::start(env.dir()).await;
    let cluster = through_proxies(&env, &faults).await.start().await;
    let link = "payment-svc";
    let cut = async {
        ended(&env, 100).await;
        for stream in ["upstream", "downstream"] {
            faults.add(link, &json!({ "type": "timeout", "stream": stream })).await;
        }
        tokio::time::sleep(CUT).await;
        faults.reset().await;
    };
    let (summary, ()) = tokio::join!(placed(&cluster, 3_000, 32, "declined=5,unserved=10"), cut);

    let injected = async |metric: &str| faults.metric(metric, &[("proxy", link), ("type", "timeout")]).await;
    let connections = injected("fault_proxy_toxic_connections_total").await;
    let swallowed = injected("fault_proxy_toxic_dropped_bytes_total").await;
    eprintln!("black hole on {link}, {CUT:?}: {connections} halves of connections, {swallowed} bytes swallowed");
    assert!(connections > 0.0 && swallowed > 0.0, "the fault hit nobody: {connections}, {swallowed}");
    for (service, _) in SERVICES {
        let bytes = faults.metric("toxiproxy_proxy_sent_bytes_total", &[("proxy", *service)]).await;
        assert!(bytes > 0.0, "{service} does not reach PostgreSQL through its proxy");
    }
    assert_all_ended_and_clean(&cluster, &summary).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_the_database_that_come_ten_seconds_late_are_outlived_by_every_order() {
    let env = Env::new("one-way").await;
    let faults = FaultProxy::start(env.dir()).await;
    let cluster = through_proxies(&env, &faults).await.start().await;
    let links = ["payment-svc", "orchestrator"];
    let cut = async {
        ended(&env, 100).await;
        // One way only: statements arrive and are committed, and nobody hears of it until the link heals.
        for link in links {
            faults.add(link, &json!({ "type": "half_open", "stream": "downstream" })).await;
        }
        tokio::time::sleep(CUT).await;
        for link in links {
            faults.remove(link, "half_open_downstream").await;
        }
    };
    let (summary, ()) = tokio::join!(placed(&cluster, 2_000, 32, "declined=5,unserved=10"), cut);
    for link in links {
        let held = faults.metric("fault_proxy_toxic_bytes_total", &[("proxy", link), ("type", "half_open")]).await;
        eprintln!("answers to {link} held for {CUT:?}: {held} bytes");
        assert!(held > 0.0, "the fault hit nobody");
    }
    assert_all_ended_and_clean(&cluster, &summary).await;
}

/// How often `toxic` was put on a connection of each of `links`, and how many bytes came to it.
async fn hits(faults: &FaultProxy, links: &[String], toxic: &str) -> Vec<(String, f64, f64)> {
    let mut hits = Vec::new();
    for link in links {
        let labels = [("proxy", link.as_str()), ("type", toxic)];
        let connections = faults.metric("fault_proxy_toxic_connections_total", &labels).await;
        hits.push((link.clone(), connections, faults.metric("fault_proxy_toxic_bytes_total", &labels).await));
    }
    hits
}

/// Orders come in while `harm` is done, then everything is healed, and every order ends.
async fn survive(cluster: &Cluster<'_>, faults: &FaultProxy, what: &str, harm: impl Future<Output = ()>) {
    let env = cluster.env();
    let count = "SELECT count(*) FROM orders";
    let before = number(env, "orders", count).await;
    let harmed = async {
        ended(env, before + 50).await;
        let at_first = number(env, "orders", count).await;
        harm.await;
        let meanwhile = number(env, "orders", count).await - at_first;
        faults.reset().await;
        env.heal_connector().await;
        meanwhile
    };
    let (loads, meanwhile) = under_load(cluster, MIX, harmed).await;
    let orders: usize = 200 * loads.len();
    eprintln!("{what}: {orders} orders ended, {meanwhile} of them were accepted meanwhile");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_link_may_be_slow_be_reset_and_be_cut_and_every_order_outlives_it() {
    let _place = place_for_servers().await;
    let mut random = testkit::rng();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let faults = FaultProxy::start(folder.path()).await;
    let servers = LinkedServers::start(&faults).await;
    let env = Env::on(servers.servers().clone(), "links").await;
    let cluster = env.cluster().start().await;
    let links = servers.links();
    for link in links {
        let sent = faults.metric("toxiproxy_proxy_sent_bytes_total", &[("proxy", link.as_str())]).await;
        assert!(sent > 0.0, "nothing goes through {link}");
    }

    survive(&cluster, &faults, "slow", async {
        for link in links {
            for stream in ["upstream", "downstream"] {
                let attributes = json!({ "latency": 50, "jitter": 30 });
                faults.add(link, &json!({ "type": "latency", "stream": stream, "attributes": attributes })).await;
            }
        }
        // On a slow machine it takes a while until something goes to each of them.
        wait_until("every link to be slow for somebody", SOON, async || {
            hits(&faults, links, "latency")
                .await
                .iter()
                .all(|(_, connections, bytes)| *connections > 0.0 && *bytes > 0.0)
        })
        .await;
    })
    .await;
    eprintln!("50 ms give or take 30 both ways: {:?}", hits(&faults, links, "latency").await);

    survive(&cluster, &faults, "reset", async {
        for link in links {
            // Whoever connects again at once is reset again, until the next link's turn.
            faults.add(link, &json!({ "type": "reset_peer", "attributes": { "timeout": 0 } })).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
            wait_until(&format!("{link} to be reset for somebody"), SOON, async || {
                hits(&faults, std::slice::from_ref(link), "reset_peer").await[0].1 > 0.0
            })
            .await;
            faults.remove(link, "reset_peer_downstream").await;
        }
    })
    .await;
    eprintln!("reset for half a second, one after another: {:?}", hits(&faults, links, "reset_peer").await);

    // One after another goes, and they come back in another order: all sorts of halves of the system see each other.
    let mut order = links.to_vec();
    survive(&cluster, &faults, "cut", async {
        order.shuffle(&mut random);
        for link in &order {
            for stream in ["upstream", "downstream"] {
                faults.add(link, &json!({ "type": "timeout", "stream": stream })).await;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        order.shuffle(&mut random);
        for link in &order {
            for stream in ["upstream", "downstream"] {
                faults.remove(link, &format!("timeout_{stream}")).await;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    })
    .await;
    let cut = hits(&faults, links, "timeout").await;
    eprintln!("cut for 1 to 15 seconds, healed in the order {order:?}: {cut:?}");
    assert!(cut.iter().all(|(_, connections, _)| *connections > 0.0), "{cut:?}");

    let after = placed(&cluster, 50, 8, "").await;
    assert_eq!(after.statuses.get("COMPLETED"), Some(&50), "{after}");
    assert_all_ended_and_clean(&cluster, &after).await;
}
