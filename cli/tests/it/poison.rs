//! Bytes that nobody understands, on every topic that somebody reads.

use std::time::Duration;

use messaging::{Record, admin};
use testkit::{Env, wait_until};
use uuid::Uuid;

use crate::stand::{assert_all_ended_and_clean, assert_clean, placed};

/// Every topic with a reader, and how many groups read it.
const READ: &[(&str, usize)] = &[
    ("order.created", 1),
    ("payment.requested", 1),
    ("payment.refund.requested", 1),
    ("inventory.requested", 1),
    ("inventory.release.requested", 1),
    ("shipping.requested", 1),
    ("shipping.cancel.requested", 1),
    ("payment.successful", 1),
    ("payment.failed", 1),
    ("payment.refunded", 1),
    ("inventory.reserved", 1),
    ("inventory.rejected", 1),
    ("inventory.released", 1),
    ("shipping.scheduled", 1),
    ("shipping.failed", 1),
    ("shipping.cancelled", 1),
    ("order.completed", 3),
    ("order.cancelled", 2),
    ("order.parked", 1),
];

fn record(topic: &str, key: Option<&[u8]>, payload: Option<&[u8]>, headers: &[(&str, &[u8])]) -> Record {
    Record {
        topic: topic.to_owned(),
        partition: 0,
        offset: 0,
        timestamp_ms: None,
        key: key.map(<[u8]>::to_vec),
        payload: payload.map(<[u8]>::to_vec),
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), Some(value.to_vec()))).collect(),
    }
}

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
    let deep = [vec![b'['; 1_000], vec![b']'; 1_000]].concat();
    vec![
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
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_no_service_understands_are_dead_lettered_and_their_neighbours_unharmed() {
    let env = Env::new("poison").await;
    let cluster = env.cluster().start().await;
    let kafka = env.kafka();
    let poisoning = async {
        for (topic, _) in READ {
            let full = kafka.topic(topic);
            admin::produce(&kafka.bootstrap_servers, &full, &poisons(topic)).await.expect("poison is sent");
        }
    };
    let (summary, ()) = tokio::join!(placed(&cluster, 300, 16, "declined=5,unserved=10"), poisoning);
    assert!(summary.is_complete(), "{summary}");

    for (topic, groups) in READ {
        let dead = format!("{topic}.dlq");
        let expected = poisons(topic).len() * groups;
        let mut letters = Vec::new();
        wait_until(&format!("{expected} letters on {dead}"), Duration::from_secs(60), async || {
            letters = env.read_topic(&dead).await;
            letters.len() >= expected
        })
        .await;
        assert_eq!(letters.len(), expected, "{dead}");
        for letter in &letters {
            for header in ["dlq-topic", "dlq-consumer-group", "dlq-reason", "dlq-error", "dlq-attempts"] {
                assert!(letter.header(header).is_some_and(|value| !value.is_empty()), "{dead}: no {header}");
            }
            assert_eq!(letter.header("dlq-topic"), Some(*topic));
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
    // Everybody goes on.
    let after = placed(&cluster, 100, 16, "").await;
    assert_eq!(after.statuses.get("COMPLETED"), Some(&100), "{after}");
    assert_clean(&env).await;
    assert_all_ended_and_clean(&cluster, &after).await;
}
