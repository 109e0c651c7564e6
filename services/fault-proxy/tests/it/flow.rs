//! Connections through the proxy: what passes, how they end, what they may hold.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use testkit::wait_until;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{Proxy, echo, round_trip, server};

const SOON: Duration = Duration::from_secs(10);

/// Writes random bytes in writes of random sizes, finishes, and gives their digest.
async fn write_random(mut to: impl AsyncWrite + Unpin, size: usize, mut rng: StdRng) -> Vec<u8> {
    let (mut left, mut digest) = (size, Sha256::new());
    while left > 0 {
        let mut bytes = vec![0; rng.random_range(1..=left.min(50_000))];
        rng.fill_bytes(&mut bytes);
        to.write_all(&bytes).await.expect("a connection that stays");
        digest.update(&bytes);
        left -= bytes.len();
    }
    to.shutdown().await.expect("a connection that stays");
    digest.finalize().to_vec()
}

/// Reads to the end and gives size and digest.
async fn digest_of(mut from: impl AsyncRead + Unpin) -> (usize, Vec<u8>) {
    let (mut size, mut digest, mut buffer) = (0, Sha256::new(), vec![0; 10_000]);
    loop {
        match from.read(&mut buffer).await.expect("a connection that stays") {
            0 => return (size, digest.finalize().to_vec()),
            read => {
                digest.update(&buffer[..read]);
                size += read;
            }
        }
    }
}

/// A toxic that loses nothing, with a name that is free.
fn harmless(number: usize, rng: &mut StdRng) -> Value {
    let stream = if rng.random_bool(0.5) { "upstream" } else { "downstream" };
    let (kind, attributes) = match rng.random_range(0..5) {
        0 => ("latency", json!({ "latency": rng.random_range(0..60), "jitter": rng.random_range(0..60) })),
        1 => ("bandwidth", json!({ "rate": rng.random_range(1..2_000) })),
        2 => ("slicer", json!({ "average_size": rng.random_range(100..5_000), "size_variation": 50, "delay": 100 })),
        3 => ("slow_close", json!({ "delay": 20 })),
        _ => ("half_open", json!({})),
    };
    let toxicity = if rng.random_bool(0.8) { 1.0 } else { 0.5 };
    json!({ "name": format!("t{number}"), "type": kind, "stream": stream, "toxicity": toxicity, "attributes": attributes })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_byte_arrives_once_and_in_order_both_ways_whatever_toxics_come_and_go() {
    const SIZE: usize = 4_000_000;
    let mut rng = testkit::rng();
    let proxy = Proxy::start().await;
    let (listener, upstream) = server().await;
    let client = proxy.connect("hashes", upstream, json!([])).await;
    let (server, _) = listener.accept().await.expect("a connection");
    let ((from_server, to_server), (from_client, to_client)) = (client.into_split(), server.into_split());
    let mut seed = || StdRng::seed_from_u64(rng.next_u64());
    let sends =
        [tokio::spawn(write_random(to_server, SIZE, seed())), tokio::spawn(write_random(to_client, SIZE, seed()))];
    let reads = [tokio::spawn(digest_of(from_client)), tokio::spawn(digest_of(from_server))];

    let mut names: Vec<String> = Vec::new();
    for number in 0..100 {
        if names.len() < 4 && rng.random_bool(0.6) {
            let toxic = harmless(number, &mut rng);
            names.push(toxic["name"].as_str().expect("a name").to_owned());
            proxy.add("hashes", toxic).await;
        } else if !names.is_empty() {
            let name = names.remove(rng.random_range(0..names.len()));
            if rng.random_bool(0.3) {
                let path = format!("/proxies/hashes/toxics/{name}");
                proxy.ask(Method::PATCH, &path, &json!({ "toxicity": rng.random_range(0.0..1.0) })).await;
            }
            proxy.remove("hashes", &name).await;
        }
        // The toxics need some time to do their work; there is no condition to await.
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..40))).await;
    }
    proxy.ask(Method::POST, "/reset", &Value::Null).await;
    for (sent, read) in sends.into_iter().zip(reads) {
        let sent = timeout(SOON, sent).await.expect("the bytes get through").expect("no panic");
        let (size, got) = timeout(SOON, read).await.expect("the end gets through").expect("no panic");
        assert_eq!((size, got), (SIZE, sent));
    }
    wait_until("the connection to be closed", SOON, async || {
        proxy.metric("fault_proxy_open_connections{proxy=\"hashes\"}").await == 0.0
    })
    .await;
    let received = "toxiproxy_proxy_received_bytes_total{direction=\"upstream\"";
    let text = proxy.client().get(proxy.url("/metrics")).send().await.expect("an answer").text().await.expect("text");
    let line = text.lines().find(|line| line.starts_with(received) && line.contains("proxy=\"hashes\""));
    assert!(line.is_some_and(|line| line.ends_with(&format!(" {SIZE}"))), "{line:?}");
}

#[tokio::test]
async fn an_end_is_passed_on_and_the_other_way_stays_open() {
    let proxy = Proxy::start().await;
    let (listener, upstream) = server().await;
    let mut client = proxy.connect("half-close", upstream, json!([])).await;
    let (mut server, _) = listener.accept().await.expect("a connection");
    client.write_all(b"question").await.expect("a write");
    client.shutdown().await.expect("a half-close");
    let mut question = String::new();
    timeout(SOON, server.read_to_string(&mut question)).await.expect("the end comes").expect("a read");
    assert_eq!(question, "question");
    server.write_all(b"answer").await.expect("a write");
    drop(server);
    let mut answer = String::new();
    timeout(SOON, client.read_to_string(&mut answer)).await.expect("the end comes").expect("a read");
    assert_eq!(answer, "answer");
}

#[tokio::test]
async fn a_client_whose_upstream_refuses_is_closed() {
    let proxy = Proxy::start().await;
    let (listener, upstream) = server().await;
    drop(listener);
    let mut client = proxy.connect("refused", upstream, json!([])).await;
    let read = timeout(SOON, client.read(&mut [0; 1])).await.expect("the end comes");
    assert_eq!(read.expect("a clean end"), 0);
    assert_eq!(proxy.metric("fault_proxy_unreachable_upstream_total{proxy=\"refused\"}").await, 1.0);
}

#[tokio::test]
async fn a_reset_of_one_side_is_a_reset_of_the_other() {
    let proxy = Proxy::start().await;
    // While the proxy is still connecting, while nothing moves, and while bytes are on their way to the side that resets.
    for (when, stands, writes) in [("early", false, false), ("idle", true, false), ("busy", true, true)] {
        let (listener, upstream) = server().await;
        let mut client = proxy.connect(when, upstream, json!([])).await;
        let (mut server, _) = listener.accept().await.expect("a connection");
        if stands {
            client.write_all(b"x").await.expect("a write");
            timeout(SOON, server.read_exact(&mut [0; 1])).await.expect("it gets through").expect("a read");
        }
        if writes {
            client.write_all(b"y").await.expect("a write");
        }
        server.set_zero_linger().expect("an option");
        drop(server);
        let read = timeout(SOON, client.read(&mut [0; 1])).await.expect("the end comes");
        assert_eq!(read.expect_err(when).kind(), std::io::ErrorKind::ConnectionReset, "{when}");
    }
}

#[tokio::test]
async fn a_proxy_that_is_disabled_or_deleted_closes_its_connections_and_leaves_nothing_behind() {
    let proxy = Proxy::start().await;
    // Blocked in each way there is, they are closed all the same.
    for (number, toxic) in ["half_open", "timeout", "latency", "bandwidth"].into_iter().enumerate() {
        let name = format!("closed-{toxic}");
        let toxics = json!([{ "type": toxic, "stream": "upstream", "attributes": { "latency": 3_600_000 } }]);
        let mut client = proxy.connect(&name, echo().await, toxics).await;
        client.write_all(b"hello").await.expect("a write");
        let open = format!("fault_proxy_open_connections{{proxy=\"{name}\"}}");
        wait_until("the connection", SOON, async || proxy.metric(&open).await == 1.0).await;
        let path = format!("/proxies/{name}");
        if number % 2 == 0 {
            let (status, _) = proxy.ask(Method::DELETE, &path, &Value::Null).await;
            assert_eq!(status, StatusCode::NO_CONTENT);
        } else {
            proxy.ask(Method::PATCH, &path, &json!({ "enabled": false })).await;
        }
        // Not soon: when the answer is there.
        assert_eq!(proxy.metric(&open).await, 0.0);
        let read = timeout(SOON, client.read(&mut [0; 1])).await.expect("the end comes");
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    }
    assert_eq!(proxy.stop().await, service_kit::Outcome::Stopped);
}

#[tokio::test]
async fn a_sender_nobody_reads_from_is_stopped_by_a_full_window() {
    const LARGE: usize = 200_000_000;
    let proxy = Proxy::start().await;
    let (listener, upstream) = server().await;
    let mut client = proxy.connect("window", upstream, json!([{ "type": "half_open", "stream": "upstream" }])).await;
    let (mut server, _) = listener.accept().await.expect("a connection");
    let bytes = vec![7; 1_000_000];
    let mut sent = 0;
    while let Ok(written) = timeout(Duration::from_secs(1), client.write(&bytes)).await {
        sent += written.expect("a connection that stays");
        assert!(sent < LARGE, "the proxy takes whatever comes");
    }
    let held = "fault_proxy_toxic_bytes_total";
    let labels = "proxy=\"window\",stream=\"upstream\",toxic=\"half_open_upstream\",type=\"half_open\"";
    let held = proxy.metric(&format!("{held}{{{labels}}}")).await;
    assert!(held > 0.0 && held < 200_000.0, "the proxy itself holds {held} bytes");
    proxy.remove("window", "half_open_upstream").await;
    drop(bytes);
    client.shutdown().await.expect("a half-close");
    let (mut got, mut buffer) = (0, vec![0; 100_000]);
    while let size @ 1.. = timeout(SOON, server.read(&mut buffer)).await.expect("it flows again").expect("a read") {
        got += size;
    }
    assert_eq!(got, sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_sender_that_never_pauses_stops_neither_the_other_way_nor_other_connections_nor_a_change() {
    let proxy = Proxy::start().await;
    let (listener, upstream) = server().await;
    let mut client = proxy.connect("flood", upstream, json!([])).await;
    let (mut server, _) = listener.accept().await.expect("a connection");
    server.write_all(b"answer").await.expect("a write");
    // On threads of their own, so that only the proxy's thread could be the one that lacks time.
    let blocking = |stream: TcpStream| {
        let stream = stream.into_std().expect("a socket");
        stream.set_nonblocking(false).expect("an option");
        stream
    };
    let mut answer = [0; 6];
    timeout(SOON, client.read_exact(&mut answer)).await.expect("the other way is open").expect("a read");
    let (mut client, mut server) = (blocking(client), blocking(server));
    let mut answers = (client.try_clone().expect("a handle"), server.try_clone().expect("a handle"));
    let floods = [
        std::thread::spawn(move || while std::io::Write::write(&mut client, &[7; 1_000_000]).is_ok() {}),
        std::thread::spawn(
            move || while std::io::Read::read(&mut server, &mut [0; 1_000_000]).is_ok_and(|got| got > 0) {},
        ),
    ];
    let mut other = proxy.connect("other", echo().await, json!([])).await;
    for _ in 0..20 {
        std::io::Write::write_all(&mut answers.1, b"answer").expect("a write");
        let (from, mut answer) = (answers.0.try_clone().expect("a handle"), [0; 6]);
        let read = tokio::task::spawn_blocking(move || std::io::Read::read_exact(&mut &from, &mut answer));
        timeout(SOON, read).await.expect("the other way is open").expect("no panic").expect("a read");
        timeout(SOON, round_trip(&mut other, b"hello")).await.expect("other connections work").expect("an echo");
    }
    timeout(SOON, proxy.add("flood", json!({ "type": "half_open", "stream": "upstream" }))).await.expect("an answer");
    timeout(SOON, proxy.ask(Method::DELETE, "/proxies/flood", &Value::Null)).await.expect("its connection is closed");
    drop(answers);
    floods.into_iter().for_each(|flood| flood.join().expect("no panic"));
}

#[tokio::test]
async fn the_same_seed_hits_the_same_connections() {
    const CONNECTIONS: usize = 40;
    let mut runs = Vec::new();
    for seed in ["7", "7", "8"] {
        let proxy = Proxy::start_with(&[("PROXIES_SEED", seed)]).await;
        let toxic = json!([{ "type": "limit_data", "toxicity": 0.5 }]);
        let first = proxy.connect("seeded", echo().await, toxic).await;
        let address = first.peer_addr().expect("an address");
        let mut pattern = Vec::new();
        let mut streams = vec![first];
        while streams.len() < CONNECTIONS {
            streams.push(TcpStream::connect(address).await.expect("a connection"));
        }
        for mut stream in streams {
            pattern.push(timeout(SOON, round_trip(&mut stream, b"x")).await.expect("an end").is_err());
        }
        let hit = pattern.iter().filter(|hit| **hit).count();
        assert!((10..30).contains(&hit), "{hit} of {CONNECTIONS}");
        runs.push(pattern);
    }
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
}
