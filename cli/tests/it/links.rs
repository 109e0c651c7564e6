//! Networks that fail between the services and PostgreSQL, while orders come in.
//!
//! Kafka is not behind the proxy: a client goes to the address that the broker advertises, whatever it was given.

use std::time::Duration;

use serde_json::json;
use testkit::{Env, FaultProxy, SERVICES, wait_until};

use crate::stand::{assert_all_ended_and_clean, number, placed};

/// How long a link is cut.
const CUT: Duration = Duration::from_secs(10);

/// Waits until so many orders have ended: the load is in full swing.
async fn ended(env: &Env, count: i64) {
    let ended = "SELECT count(*) FROM orders WHERE status <> 'PENDING'";
    wait_until("orders to end", Duration::from_secs(60), async || number(env, "orders", ended).await >= count).await;
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
