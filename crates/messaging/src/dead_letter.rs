//! Dead letters: what cannot be processed goes to `<topic>.dlq` with its original key, bytes and headers and
//! its cause in `dlq-*` headers, so that nothing that was sent is ever lost.

use chrono::{DateTime, SecondsFormat, Utc};
use rdkafka::message::{Header, Headers, OwnedHeaders};

use crate::producer::WireMessage;
use crate::{KafkaConfig, Record};

/// The dead letter topic of `topic`.
pub fn topic_of(topic: &str) -> String {
    format!("{topic}.dlq")
}

/// Why and when a message was given up.
pub(crate) struct Cause {
    /// Stable, kebab-case.
    pub(crate) reason: &'static str,
    /// The error with its sources.
    pub(crate) error: String,
    /// How often it was tried.
    pub(crate) attempts: u32,
    /// When the first try failed.
    pub(crate) first_failed_at: DateTime<Utc>,
}

/// A header's size is bounded, so that a letter always fits its topic.
const MAX_ERROR_CHARACTERS: usize = 2_000;

/// So much of the value stays in a letter that its topic refuses whole.
const KEPT_BYTES: usize = 64 * 1024;

/// The last resort for a letter that even its topic refuses as too large: the start of the value, without the
/// original headers. `dlq-topic`, `dlq-partition` and `dlq-offset` say where the original is while it is retained.
pub(crate) fn shorten(letter: &mut WireMessage) {
    let size = letter.payload.as_ref().map_or(0, Vec::len);
    let mut headers = OwnedHeaders::new();
    for header in letter.headers.iter().filter(|header| header.key.starts_with("dlq-")) {
        headers = headers.insert(header);
    }
    letter.headers = headers.insert(Header { key: "dlq-truncated-from", value: Some(&size.to_string()) });
    if let Some(payload) = &mut letter.payload {
        payload.truncate(KEPT_BYTES);
    }
    if let Some(key) = &mut letter.key {
        key.truncate(KEPT_BYTES);
    }
}

pub(crate) fn letter(config: &KafkaConfig, group: &str, record: &Record, cause: &Cause) -> WireMessage {
    let mut headers = record.wire_headers();
    let error: String = cause.error.chars().take(MAX_ERROR_CHARACTERS).collect();
    for (key, value) in [
        ("dlq-topic", record.topic.clone()),
        ("dlq-partition", record.partition.to_string()),
        ("dlq-offset", record.offset.to_string()),
        ("dlq-timestamp", record.timestamp_ms.unwrap_or(-1).to_string()),
        ("dlq-consumer-group", group.to_owned()),
        ("dlq-reason", cause.reason.to_owned()),
        ("dlq-error", error),
        ("dlq-attempts", cause.attempts.to_string()),
        ("dlq-first-failed-at", cause.first_failed_at.to_rfc3339_opts(SecondsFormat::Millis, true)),
    ] {
        headers = headers.insert(Header { key, value: Some(&value) });
    }
    WireMessage {
        topic: config.topic(&topic_of(&record.topic)),
        key: record.key.clone(),
        payload: record.payload.clone(),
        headers,
    }
}
