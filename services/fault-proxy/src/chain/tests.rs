use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, RngExt};
use serde_json::{Value, json};

use super::*;
use crate::metrics::Hits;
use crate::toxics::Attributes;

fn toxic(id: u64, kind: &str, attributes: &Value) -> Arc<Toxic> {
    let attributes = Attributes::of_type(kind).unwrap().with(attributes.as_object().unwrap()).unwrap();
    Arc::new(Toxic {
        id,
        name: format!("{kind}-{id}"),
        kind: kind.to_owned(),
        stream: "upstream".to_owned(),
        direction: Direction::Upstream,
        toxicity: 1.0,
        attributes,
        hits: Hits::unregistered(),
    })
}

fn chain() -> Chain {
    Chain::new(Direction::Upstream, Draw::new(1, "p", 0), 1 << 20)
}

fn data(bytes: &[u8], at: Instant) -> Item {
    Item::Data(Chunk { bytes: Bytes::copy_from_slice(bytes), at })
}

/// Everything that may be written now.
fn written(chain: &mut Chain, now: Instant) -> Vec<u8> {
    let mut out = Vec::new();
    chain.advance(now);
    while let Some(Item::Data(chunk)) = chain.first().cloned() {
        out.extend_from_slice(&chunk.bytes);
        chain.written(chunk.bytes.len());
        chain.advance(now);
    }
    out
}

const MS: Duration = Duration::from_millis(1);

#[test]
fn what_a_removed_toxic_held_back_leaves_at_once_and_in_order() {
    let now = Instant::now();
    let mut chain = chain();
    let slow = toxic(1, "latency", &json!({ "latency": 60_000 }));
    let slower = toxic(2, "latency", &json!({ "latency": 90_000 }));
    chain.configure(&[slow.clone(), slower.clone()], now);
    chain.push(data(b"one", now));
    assert_eq!(written(&mut chain, now + 60_000 * MS), b"", "it waits before the second");
    chain.push(data(b"two", now + 60_000 * MS));
    chain.configure(&[slow], now + 60_001 * MS);
    assert_eq!(written(&mut chain, now + 60_001 * MS), b"one");
    chain.configure(&[], now + 60_002 * MS);
    chain.push(data(b"three", now + 60_002 * MS));
    assert_eq!(written(&mut chain, now + 60_002 * MS), b"twothree");
    assert_eq!((slower.hits.connections.get(), slower.hits.bytes.get()), (1, 3));
}

#[test]
fn a_black_hole_counts_what_it_swallows_and_closes_when_it_is_removed() {
    let now = Instant::now();
    let mut chain = chain();
    let hole = toxic(1, "timeout", &json!({}));
    chain.configure(std::slice::from_ref(&hole), now);
    chain.push(data(b"lost", now));
    assert_eq!(chain.advance(now), None);
    assert_eq!(chain.first(), None);
    assert_eq!(hole.hits.dropped.get(), 4);
    chain.configure(&[], now);
    assert_eq!(chain.first(), Some(&Item::End(End::Close)));
    assert!(!chain.has_room(), "nothing comes after the end");
}

#[test]
fn a_limit_lets_its_bytes_through_and_then_closes() {
    let now = Instant::now();
    let mut chain = chain();
    chain.configure(&[toxic(1, "limit_data", &json!({ "bytes": 5 }))], now);
    chain.push(data(b"abc", now));
    chain.push(data(b"defgh", now));
    assert_eq!(written(&mut chain, now), b"abcde");
    assert_eq!(chain.first(), Some(&Item::End(End::Close)));
}

#[test]
fn a_reset_overtakes_what_waits() {
    let now = Instant::now();
    let mut chain = chain();
    chain.push(data(b"before", now));
    chain.configure(&[toxic(1, "reset_peer", &json!({ "timeout": 10 }))], now);
    chain.push(data(b"x", now));
    assert_eq!(chain.advance(now), Some(now + 10 * MS));
    assert!(matches!(chain.first(), Some(Item::Data(_))));
    chain.advance(now + 10 * MS);
    assert_eq!(chain.first(), Some(&Item::End(End::Reset)));
}

#[test]
fn a_half_open_direction_takes_what_fits_and_goes_on_when_it_heals() {
    let now = Instant::now();
    let mut chain = chain();
    chain.configure(&[toxic(1, "half_open", &json!({}))], now);
    let mut sent = Vec::new();
    while chain.has_room() {
        sent.extend_from_slice(&[7; 1000]);
        chain.push(data(&[7; 1000], now));
        chain.advance(now);
    }
    assert!(sent.len() < ROOM + 1000, "{}", sent.len());
    assert_eq!(chain.first(), None);
    chain.configure(&[], now);
    assert_eq!(written(&mut chain, now), sent);
    assert!(chain.has_room());
}

#[test]
fn a_toxicity_that_rises_puts_the_toxic_in_its_place() {
    let now = Instant::now();
    let mut chain = chain();
    let rare = |toxicity| Arc::new(Toxic { toxicity, ..(*toxic(1, "latency", &json!({ "latency": 50 }))).clone() });
    let last = toxic(2, "latency", &json!({ "latency": 100 }));
    chain.configure(&[rare(0.0), last.clone()], now);
    chain.push(data(b"a", now));
    chain.configure(&[rare(1.0), last], now);
    chain.push(data(b"b", now));
    assert_eq!(written(&mut chain, now + 100 * MS), b"a");
    assert_eq!(written(&mut chain, now + 150 * MS), b"b");
}

/// One toxic that must lose nothing, at random.
fn harmless(id: u64, rng: &mut StdRng) -> Arc<Toxic> {
    match rng.random_range(0..6) {
        0 => toxic(id, "latency", &json!({ "latency": rng.random_range(0..50), "jitter": rng.random_range(0..50) })),
        1 => toxic(id, "bandwidth", &json!({ "rate": rng.random_range(0..200) })),
        2 => {
            let (size, variation, delay) =
                (rng.random_range(0..900), rng.random_range(0..100), rng.random_range(0..2_000));
            toxic(id, "slicer", &json!({ "average_size": size, "size_variation": variation, "delay": delay }))
        }
        3 => toxic(id, "slow_close", &json!({ "delay": rng.random_range(0..100) })),
        4 => toxic(id, "half_open", &json!({})),
        _ => toxic(id, "noop", &json!({})),
    }
}

/// Adds, removes or changes one.
fn change(toxics: &mut Vec<Arc<Toxic>>, id: u64, rng: &mut StdRng) {
    match rng.random_range(0..3) {
        0 if toxics.len() < 5 => toxics.push(harmless(id, rng)),
        1 if !toxics.is_empty() => drop(toxics.remove(rng.random_range(0..toxics.len()))),
        2 if !toxics.is_empty() => {
            let at = rng.random_range(0..toxics.len());
            let toxicity = if rng.random_bool(0.5) { 1.0 } else { rng.random_range(0.0..1.0) };
            toxics[at] = Arc::new(Toxic { toxicity, ..(*toxics[at]).clone() });
        }
        _ => {}
    }
}

#[test]
fn whatever_changes_when_every_byte_arrives_once_and_in_order() {
    let mut rng = testkit::rng();
    for _ in 0..2_000 {
        let mut now = Instant::now();
        let (mut chain, mut toxics) = (chain(), Vec::new());
        let (mut sent, mut got) = (Vec::new(), Vec::new());
        for step in 0..100 {
            now += Duration::from_micros(rng.random_range(0..30_000));
            if rng.random_bool(0.3) {
                change(&mut toxics, step, &mut rng);
                chain.configure(&toxics, now);
            }
            if chain.has_room() {
                let mut bytes = vec![0; rng.random_range(1..3_000)];
                rng.fill_bytes(&mut bytes);
                sent.extend_from_slice(&bytes);
                chain.push(data(&bytes, now));
            }
            chain.advance(now);
            if let Some(Item::Data(chunk)) = chain.first().cloned() {
                let size = rng.random_range(1..=chunk.bytes.len());
                got.extend_from_slice(&chunk.bytes[..size]);
                chain.written(size);
            }
        }
        chain.configure(&[], now);
        chain.push(Item::End(End::Finish));
        got.extend(written(&mut chain, now));
        assert_eq!(chain.first(), Some(&Item::End(End::Finish)));
        assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
    }
}
