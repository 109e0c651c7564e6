//! Each toxic as a client feels it. What they decide in detail is tested beside them, without a clock.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::support::{Proxy, echo, round_trip, server};

const SOON: Duration = Duration::from_secs(10);
const MS: Duration = Duration::from_millis(1);

#[tokio::test]
async fn a_latency_is_felt_by_the_first_connection_and_not_after_its_removal() {
    let proxy = Proxy::start().await;
    let toxics = json!([{ "type": "latency", "attributes": { "latency": 300 } }]);
    let mut client = proxy.connect("latency", echo().await, toxics).await;
    let start = Instant::now();
    round_trip(&mut client, b"hello").await.expect("an echo");
    assert!(start.elapsed() >= 300 * MS, "{:?}", start.elapsed());
    let path = "/proxies/latency/toxics/latency_downstream";
    proxy.ask(Method::PATCH, path, &json!({ "attributes": { "latency": 3_600_000 } })).await;
    proxy.remove("latency", "latency_downstream").await;
    timeout(SOON, round_trip(&mut client, b"hello")).await.expect("not after an hour").expect("an echo");
}

#[tokio::test]
async fn a_bandwidth_is_kept() {
    let proxy = Proxy::start().await;
    let toxics = json!([{ "type": "bandwidth", "stream": "upstream", "attributes": { "rate": 1000 } }]);
    let (listener, upstream) = server().await;
    let mut client = proxy.connect("bandwidth", upstream, toxics).await;
    let (mut server, _) = listener.accept().await.expect("a connection");
    let start = Instant::now();
    let sent = tokio::spawn(async move { client.write_all(&vec![7; 1_000_000]).await.map(|()| client) });
    timeout(SOON, server.read_exact(&mut vec![0; 1_000_000])).await.expect("all bytes").expect("a read");
    let took = start.elapsed();
    drop(sent.await.expect("no panic").expect("a write"));
    // That it is no slower either is tested without a clock; here a busy machine may add to it.
    assert!(took >= 900 * MS, "1 MB at 1 MB/s took {took:?}");
}

#[tokio::test]
async fn slices_arrive_one_by_one() {
    let proxy = Proxy::start().await;
    let attributes = json!({ "average_size": 10, "size_variation": 0, "delay": 50_000 });
    let (listener, upstream) = server().await;
    let toxics = json!([{ "type": "slicer", "stream": "upstream", "attributes": attributes }]);
    let mut client = proxy.connect("slicer", upstream, toxics).await;
    let (mut server, _) = listener.accept().await.expect("a connection");
    let start = Instant::now();
    client.write_all(&[7; 100]).await.expect("a write");
    let (mut reads, mut got) = (0, 0);
    while got < 100 {
        got += timeout(SOON, server.read(&mut [0; 100])).await.expect("bytes").expect("a read");
        reads += 1;
    }
    // A reader that is late gets several at once, but never all, and none before its time.
    assert!(reads >= 2 && start.elapsed() >= 9 * 50 * MS, "100 bytes in {reads} reads, {:?}", start.elapsed());
}

#[tokio::test]
async fn a_slow_close_keeps_the_end_back() {
    let proxy = Proxy::start().await;
    let toxics = json!([{ "type": "slow_close", "attributes": { "delay": 300 } }]);
    let mut client = proxy.connect("slow-close", echo().await, toxics).await;
    round_trip(&mut client, b"hello").await.expect("an echo");
    let start = Instant::now();
    client.shutdown().await.expect("a half-close");
    let end = timeout(SOON, client.read(&mut [0; 1])).await.expect("an end").expect("a clean one");
    assert_eq!(end, 0);
    assert!(start.elapsed() >= 300 * MS, "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_timeout_swallows_and_closes_after_its_time_or_at_its_removal() {
    let proxy = Proxy::start().await;
    let mut client = proxy.connect("timeout", echo().await, json!([])).await;
    round_trip(&mut client, b"hello").await.expect("an echo");
    let start = Instant::now();
    proxy.add("timeout", json!({ "type": "timeout", "attributes": { "timeout": 200 } })).await;
    let end = timeout(SOON, client.read(&mut [0; 9])).await.expect("an end");
    assert_eq!(end.expect("a clean end"), 0);
    assert!(start.elapsed() >= 200 * MS, "{:?}", start.elapsed());

    let toxics = json!([{ "type": "timeout", "stream": "upstream" }]);
    let mut client = proxy.connect("hole", echo().await, toxics).await;
    client.write_all(b"lost").await.expect("a write");
    timeout(300 * MS, client.read(&mut [0; 9])).await.expect_err("neither bytes nor an end");
    proxy.remove("hole", "timeout_upstream").await;
    let end = timeout(SOON, client.read(&mut [0; 9])).await.expect("an end");
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
}

#[tokio::test]
async fn a_half_open_connection_says_nothing_and_goes_on_when_it_heals() {
    let proxy = Proxy::start().await;
    let (listener, upstream) = server().await;
    let toxics = json!([{ "type": "half_open", "stream": "downstream" }]);
    let mut client = proxy.connect("half-open", upstream, toxics).await;
    let (mut server, _) = listener.accept().await.expect("a connection");
    client.write_all(b"question").await.expect("a write");
    let mut question = [0; 8];
    timeout(SOON, server.read_exact(&mut question)).await.expect("the other way is open").expect("a read");
    server.write_all(b"answer").await.expect("a write");
    drop(server);
    timeout(300 * MS, client.read(&mut [0; 9])).await.expect_err("neither bytes nor an end");
    proxy.remove("half-open", "half_open_downstream").await;
    let mut answer = String::new();
    timeout(SOON, client.read_to_string(&mut answer)).await.expect("an end").expect("a clean one");
    assert_eq!(answer, "answer");
}

#[tokio::test]
async fn a_reset_peer_resets_both_sides() {
    let proxy = Proxy::start().await;
    let (listener, upstream) = server().await;
    let toxics = json!([{ "type": "reset_peer", "attributes": { "timeout": 100 } }]);
    let mut client = proxy.connect("reset-peer", upstream, toxics).await;
    let (mut server, _) = listener.accept().await.expect("a connection");
    server.write_all(b"x").await.expect("a write");
    for stream in [&mut client, &mut server] {
        let end = timeout(SOON, stream.read(&mut [0; 9])).await.expect("an end");
        assert_eq!(end.expect_err("no clean end").kind(), std::io::ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn a_limit_of_data_lets_so_much_through() {
    let proxy = Proxy::start().await;
    let toxics = json!([{ "type": "limit_data", "attributes": { "bytes": 8 } }]);
    let mut client = proxy.connect("limit", echo().await, toxics).await;
    client.write_all(b"0123456789").await.expect("a write");
    let mut got = Vec::new();
    timeout(SOON, client.read_to_end(&mut got)).await.expect("an end").expect("a clean one");
    assert_eq!(got, b"01234567");
}

#[tokio::test]
async fn a_change_of_attributes_lets_go_what_waits() {
    let proxy = Proxy::start().await;
    let toxics = json!([{ "type": "latency", "attributes": { "latency": 3_600_000 } }]);
    let mut client = proxy.connect("changed", echo().await, toxics).await;
    client.write_all(b"hello").await.expect("a write");
    timeout(200 * MS, client.read(&mut [0; 9])).await.expect_err("not within the hour");
    let path = "/proxies/changed/toxics/latency_downstream";
    proxy.ask(Method::PATCH, path, &json!({ "attributes": { "latency": 0 } })).await;
    let mut got = [0; 5];
    timeout(SOON, client.read_exact(&mut got)).await.expect("at once").expect("a read");
    assert_eq!(&got, b"hello");
}
