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

/// As many as any count has.
const MAX_COUNT_DIGITS: usize = 20;

/// So much of the value stays in a letter that its topic refuses whole.
const KEPT_BYTES: usize = 64 * 1024;

/// On a letter whose message had headers that are not in it, because their names are not UTF-8: how many.
pub const HEADERS_DROPPED: &str = "dlq-headers-dropped";

/// What a cut letter keeps of its headers, in this order.
const KEPT_HEADERS: [&str; 10] = [
    HEADERS_DROPPED,
    "dlq-topic",
    "dlq-partition",
    "dlq-offset",
    "dlq-timestamp",
    "dlq-consumer-group",
    "dlq-reason",
    "dlq-error",
    "dlq-attempts",
    "dlq-first-failed-at",
];

/// The last resort for a letter that even its topic refuses as too large: the start of the value, without the
/// original headers. `dlq-topic`, `dlq-partition` and `dlq-offset` say where the original is while it is retained.
///
/// Of each name only the last header stays, which is ours: a message may have brought some of any size.
pub(crate) fn shorten(letter: &mut WireMessage) {
    let size = letter.payload.as_ref().map_or(0, Vec::len);
    let mut headers = OwnedHeaders::new();
    for name in KEPT_HEADERS {
        let ours = letter.headers.iter().filter(|header| header.key == name).last();
        // The count is the only one that may be missing of ours; one that a message brought is no number, or a short one.
        let is_short = |header: &Header<'_, &[u8]>| {
            name != HEADERS_DROPPED || header.value.is_some_and(|value| value.len() <= MAX_COUNT_DIGITS)
        };
        if let Some(header) = ours.filter(is_short) {
            headers = headers.insert(header);
        }
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
    let original = WireMessage::of(config, record);
    let mut headers = original.headers;
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
    WireMessage { topic: topic_of(&original.topic), headers, ..original }
}
