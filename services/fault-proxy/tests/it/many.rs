//! Many connections at once, through the program that is shipped.

use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};
use testkit::{FaultProxy, wait_until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::echo;

/// So many, unless `FAULT_PROXY_CONNECTIONS` says otherwise. The proxy and this process need two descriptors for each.
const CONNECTIONS: usize = 2_000;
/// No measure of speed: what is not free by then never will be. The toxics hold for an hour or for ever, so only their
/// removal can have freed anybody. How long it took is printed; two idle cores take a second for 9,500 connections.
const HANGS: Duration = Duration::from_secs(120);

const MESSAGE: &[u8] = b"ping";

/// Connects and proves that bytes get through, for all connections.
async fn connect(count: usize, address: std::net::SocketAddr) -> Vec<TcpStream> {
    let mut streams = Vec::with_capacity(count);
    while streams.len() < count {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        let mut answer = [0; MESSAGE.len()];
        stream.write_all(MESSAGE).await.expect("a write");
        stream.read_exact(&mut answer).await.expect("an echo");
        streams.push(stream);
    }
    streams
}

/// Sends through all of `streams` into a toxic, waits until it has hit every one, removes it, and gives back the streams
/// that still live with the time until the last one was free.
async fn freed(faults: &FaultProxy, mut streams: Vec<TcpStream>, toxic: &Value) -> (Vec<TcpStream>, Duration) {
    let (count, kind) = (streams.len(), toxic["type"].as_str().expect("a type"));
    faults.add("many", toxic).await;
    let labels = [("proxy", "many"), ("type", kind)];
    for stream in &mut streams {
        stream.write_all(MESSAGE).await.expect("a write");
    }
    let hit = count * MESSAGE.len();
    wait_until("every connection to be blocked", Duration::from_secs(60), async || {
        faults.metric("fault_proxy_toxic_bytes_total", &labels).await as usize >= hit
    })
    .await;
    let mut waiting = JoinSet::new();
    for mut stream in streams {
        waiting.spawn(async move {
            let mut answer = [0; MESSAGE.len()];
            let alive = stream.read_exact(&mut answer).await.is_ok();
            (alive.then_some(stream), Instant::now())
        });
    }
    let start = Instant::now();
    faults.remove("many", &format!("{kind}_upstream")).await;
    let ended = timeout(HANGS, waiting.join_all()).await.unwrap_or_else(|_| panic!("{kind} still holds somebody"));
    let last = ended.iter().map(|(_, at)| at.duration_since(start)).max().unwrap_or_default();
    (ended.into_iter().filter_map(|(stream, _)| stream).collect(), last)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_frees_every_blocked_connection_at_once() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("a higher limit");
    let count = std::env::var("FAULT_PROXY_CONNECTIONS").map_or(CONNECTIONS, |text| text.parse().expect("a number"));
    let folder = std::env::temp_dir().join(format!("fault-proxy-many-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let faults = FaultProxy::start(&folder).await;
    let address = faults.create("many", &echo().await.to_string()).await;
    let mut streams = connect(count, address).await;
    for (kind, attributes) in [
        ("latency", json!({ "latency": 3_600_000 })),
        ("bandwidth", json!({ "rate": 0 })),
        ("half_open", json!({})),
        ("timeout", json!({})),
    ] {
        let toxic = json!({ "type": kind, "stream": "upstream", "attributes": attributes });
        let (alive, last) = freed(&faults, streams, &toxic).await;
        eprintln!("{count} connections blocked by {kind} are free {last:?} after the removal began");
        let expected = if kind == "timeout" { 0 } else { count };
        assert_eq!(alive.len(), expected, "{kind}");
        streams = alive;
    }
    wait_until("every connection to be gone", Duration::from_secs(10), async || {
        faults.metric("fault_proxy_open_connections", &[("proxy", "many")]).await == 0.0
    })
    .await;

    // Deleted under open connections, a proxy has closed them when it answers.
    let other = faults.create("more", &echo().await.to_string()).await;
    let streams = connect(count, other).await;
    timeout(HANGS, faults.delete("more")).await.expect("an answer");
    for mut stream in streams {
        let end = timeout(HANGS, stream.read(&mut [0; 1])).await.expect("the end comes");
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    }
    drop(faults);
    std::fs::remove_dir_all(&folder).expect("its removal");
}
