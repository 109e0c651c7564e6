//! Bytes that nobody understands, on every topic.

use messaging::{Record, admin};
use orders::readers::{READERS, readers};
use orders::topics::{ALL, ORDER_CREATED};
use std::collections::BTreeSet;
use testkit::{Env, wait_until};
use uuid::Uuid;

use crate::stand::{SOON, assert_all_ended_and_clean, assert_clean, placed, record};

/// What can be wrong with a message, from the outside in.
fn poisons(topic: &str) -> Vec<Record> {
    let key = Uuid::new_v4().to_string();
    let key = key.as_bytes();
    let event_type = format!("com.chaossymphony.{topic}.v1");
    let headers = |event_type: &str, payload: Option<&[u8]>| {
        let id = Uuid::new_v4().to_string();
        let own: &[(&str, &[u8])] = &[
            ("ce_specversion", b"1.0"),
            ("ce_id", id.as_bytes()),
            ("ce_type", event_type.as_bytes()),
            ("ce_source", b"/test"),
            ("ce_subject", key),
            ("ce_time", b"2026-01-01T00:00:00Z"),
            ("ce_sagaid", key),
            ("ce_step", b"payment"),
            ("ce_causationid", id.as_bytes()),
        ];
        record(topic, Some(key), payload, own)
    };
    let deep = [vec![b'['; 10_000], vec![b']'; 10_000]].concat();
    let without = |mut record: Record, header: &str| {
        record.headers.retain(|(name, _)| name != header);
        record
    };
    let with = |record: Record, header: &str, value: &[u8]| {
        let mut record = without(record, header);
        record.headers.push((header.to_owned(), Some(value.to_vec())));
        record
    };
    let whole = || headers(&event_type, Some(b"{}"));
    let mut poisons = vec![
        without(whole(), "ce_id"),
        with(whole(), "ce_specversion", b"0.3"),
        with(whole(), "ce_subject", b"another"),
        with(whole(), "ce_time", b"yesterday"),
        with(whole(), "ce_sagaid", b"not-a-saga"),
        // Nearly all that a topic takes.
        headers(&event_type, Some(&vec![b'x'; 900_000])),
        record(topic, None, Some(b"no key"), &[]),
        record(topic, Some(b"\xff\xfe"), Some(b"\x00\x01\x02"), &[]),
        record(topic, Some(key), Some(b"{}"), &[]),
        record(topic, Some(key), Some(b"{}"), &[("ce_id", b"not-an-id"), ("ce_type", b"\xff")]),
        headers("com.chaossymphony.something.else.v1", Some(b"{}")),
        headers(&event_type, None),
        headers(&event_type, Some(b"")),
        headers(&event_type, Some(b"{\"orderId\":")),
        headers(&event_type, Some(b"\xc3\x28")),
        headers(&event_type, Some(b"{\"orderId\": NaN}")),
        headers(&event_type, Some(&deep)),
        headers(&event_type, Some(b"[1, 2]")),
    ];
    // Any object starts a saga: what its fields mean is its participants' affair.
    if topic != ORDER_CREATED.name {
        poisons.push(headers(&event_type, Some(b"{\"orderId\": \"\\u0000\"}")));
        poisons.push(headers(&event_type, Some(b"{\"orderId\": -1, \"amount\": 9223372036854775808}")));
    }
    poisons
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_no_service_understands_are_dead_lettered_and_their_neighbours_unharmed() {
    let env = Env::new("poison").await;
    let cluster = env.cluster().start().await;
    let kafka = env.kafka();
    let poisoning = async {
        for topic in ALL {
            let full = kafka.topic(topic.name);
            admin::produce(&kafka.bootstrap_servers, &full, &poisons(topic.name)).await.expect("poison is sent");
        }
    };
    let (summary, ()) = tokio::join!(placed(&cluster, 300, 16, "declined=5,unserved=10"), poisoning);
    assert!(summary.is_complete(), "{summary}");

    for topic in ALL.iter().map(|topic| topic.name) {
        let dead = format!("{topic}.dlq");
        let expected = poisons(topic).len() * readers(topic).count();
        let mut letters = Vec::new();
        wait_until(&format!("{expected} letters on {dead}"), SOON, async || {
            letters = env.read_topic(&dead).await;
            letters.len() >= expected
        })
        .await;
        assert_eq!(letters.len(), expected, "{dead}");
        for letter in &letters {
            for header in ["dlq-topic", "dlq-consumer-group", "dlq-reason", "dlq-error", "dlq-attempts"] {
                assert!(letter.header(header).is_some_and(|value| !value.is_empty()), "{dead}: no {header}");
            }
            assert_eq!(letter.header("dlq-topic"), Some(topic));
        }
        let originals: Vec<_> = env.read_topic(topic).await;
        for letter in &letters {
            let (partition, offset) = (letter.header("dlq-partition"), letter.header("dlq-offset"));
            let original = originals.iter().find(|original| {
                partition == Some(&original.partition.to_string()) && offset == Some(&original.offset.to_string())
            });
            let original = original.unwrap_or_else(|| panic!("{dead}: no original"));
            assert_eq!((&original.key, &original.payload), (&letter.key, &letter.payload), "{dead}");
        }
    }
    // Something was on every topic, so what a group has committed tells what it reads.
    let every: Vec<String> = ALL.iter().map(|topic| kafka.topic(topic.name)).collect();
    for (group, topics) in READERS {
        let expected: BTreeSet<String> = topics.iter().map(|topic| kafka.topic(topic.name)).collect();
        wait_until(&format!("{group} to have passed its topics and no other"), SOON, async || {
            let committed = admin::group_offsets(&kafka.bootstrap_servers, &kafka.group(group), &every).await;
            committed.expect("offsets").into_keys().map(|(topic, _)| topic).collect::<BTreeSet<_>>() == expected
        })
        .await;
    }
    // Everybody goes on.
    let after = placed(&cluster, 100, 16, "").await;
    assert_eq!(after.statuses.get("COMPLETED"), Some(&100), "{after}");
    assert_clean(&env).await;
    assert_all_ended_and_clean(&cluster, &after).await;
}
