//! Bytes that nobody understands, on every topic.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use messaging::{Record, admin, dead_letter};
use orders::readers::readers;
use orders::topics::ALL;
use uuid::Uuid;

use super::Injected;
use crate::soak::stand::{Stand, until};

/// A header on everything that is sent here, and so on its dead letters.
pub(in crate::soak) const MARK: &str = "soak-hostile";
/// For everything to be dead-lettered, also while the broker comes back.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sends every kind of poison to every topic and waits until all of it is in the dead letters.
pub(super) async fn send(stand: &Stand) -> anyhow::Result<Injected> {
    let kafka = stand.endpoints.kafka();
    let (mut sent, mut expected) = (0, 0);
    // The broker may die meanwhile, of another fault.
    let before = until("the ends of the dead letters", PATIENCE, async || letters(&kafka).await.ok()).await?;
    for topic in ALL {
        let records = poisons(topic.name);
        sent += records.len();
        expected += records.len() * readers(topic.name).count();
        let start = Instant::now();
        while let Err(error) = admin::produce(&kafka, topic.name, &records).await {
            if start.elapsed() > PATIENCE {
                return Err(error).context("sending hostile bytes");
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
    let start = Instant::now();
    let mut grown = 0;
    while grown < expected as i64 {
        anyhow::ensure!(
            start.elapsed() < PATIENCE,
            "of {sent} hostile messages came {grown} dead letters, not {expected}"
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
        grown = letters(&kafka).await.map_or(grown, |now| now - before);
    }
    let proof = format!("{sent} messages on {} topics, {grown} dead letters", ALL.len());
    Ok(Injected { target: "every topic".into(), proof, from: Instant::now() })
}

/// How many dead letters there ever were.
async fn letters(kafka: &str) -> anyhow::Result<i64> {
    let mut sum = 0;
    for topic in ALL {
        let ends = admin::offsets(kafka, &dead_letter::topic_of(topic.name)).await?;
        sum += ends.iter().map(|(_, high)| high).sum::<i64>();
    }
    Ok(sum)
}

/// What can be wrong with a message, from the outside in.
fn poisons(topic: &str) -> Vec<Record> {
    let key = Uuid::new_v4().to_string();
    let key = key.as_bytes();
    let event_type = format!("com.chaossymphony.{topic}.v1");
    let enveloped = |event_type: &str, payload: Option<&[u8]>| {
        let id = Uuid::new_v4().to_string();
        let headers: &[(&str, &[u8])] = &[
            ("ce_specversion", b"1.0"),
            ("ce_id", id.as_bytes()),
            ("ce_type", event_type.as_bytes()),
            ("ce_source", b"/soak"),
            ("ce_subject", key),
            ("ce_time", b"2026-01-01T00:00:00Z"),
            ("ce_sagaid", key),
            ("ce_step", b"payment"),
            ("ce_causationid", id.as_bytes()),
        ];
        record(topic, Some(key), payload, headers)
    };
    let deep = [vec![b'['; 1_000], vec![b']'; 1_000]].concat();
    vec![
        record(topic, None, Some(b"no key"), &[]),
        record(topic, Some(b"\xff\xfe"), Some(b"\x00\x01\x02"), &[]),
        record(topic, Some(key), Some(b"{}"), &[("ce_id", b"not-an-id"), ("ce_type", b"\xff")]),
        enveloped("com.chaossymphony.something.else.v1", Some(b"{}")),
        enveloped(&event_type, None),
        enveloped(&event_type, Some(b"{\"orderId\":")),
        enveloped(&event_type, Some(b"\xc3\x28")),
        enveloped(&event_type, Some(&deep)),
    ]
}

fn record(topic: &str, key: Option<&[u8]>, payload: Option<&[u8]>, headers: &[(&str, &[u8])]) -> Record {
    let mut headers: Vec<_> = headers.iter().map(|(name, value)| ((*name).to_owned(), Some(value.to_vec()))).collect();
    headers.push((MARK.to_owned(), Some(b"1".to_vec())));
    Record { headers, ..Record::unsent(topic, key.map(<[u8]>::to_vec), payload.map(<[u8]>::to_vec)) }
}
