//! A letter as the API shows it.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::{FromRow, Row};
use utoipa::ToSchema;
use uuid::Uuid;

/// The columns of [`LetterView`]: no bodies, and of a key no more than anybody wants to see in a list.
macro_rules! letter_columns {
    () => {
        "id, seq, topic, partition, \"offset\", origin_at, group_name, source_format, dlq_topic, dlq_partition, dlq_offset,
    substr(key, 1, 1024) AS key, octet_length(payload) AS size, reason, left(error, 500) AS error, attempts,
    first_failed_at, fingerprint, truncated, saga_id, replay_of, indexed_at, state, state_at, edit_number, replay_number,
    replay_id, failed_as"
    };
}
pub(crate) use letter_columns;

/// A dead letter, without its body.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LetterView {
    /// The letter.
    pub(crate) id: Uuid,
    #[serde(skip)]
    pub(crate) seq: i64,
    /// Where the message was: its topic, without the deployment's prefix.
    topic: String,
    /// Its partition there.
    partition: i32,
    /// Its offset there.
    offset: i64,
    /// When the broker got it.
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<DateTime<Utc>>,
    /// The consumer group that gave it up; empty when the letter does not say.
    group: String,
    /// Whose headers told all this: `symphony`, `spring`, `connect`, or `raw` (nobody's: all is taken from where the
    /// letter lies).
    source_format: String,
    /// Where the letter itself lies.
    dlq_topic: String,
    /// Its partition there.
    dlq_partition: i32,
    /// Its offset there.
    dlq_offset: i64,
    /// The key as UTF-8, up to 1024 bytes of it.
    key: Option<String>,
    /// The same bytes.
    key_base64: Option<String>,
    /// Bytes of the value; absent when it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<i32>,
    /// A short stable word.
    reason: String,
    /// The start of the error.
    error: String,
    /// How often it was tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<i32>,
    /// When it first failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    first_failed_at: Option<DateTime<Utc>>,
    /// The group of errors that it belongs to.
    fingerprint: String,
    /// It has only the start of its message and can't be sent back.
    truncated: bool,
    /// The saga that the message names.
    #[serde(skip_serializing_if = "Option::is_none")]
    saga_id: Option<Uuid>,
    /// `NEW`, `REPLAYING` (claimed), `SENT`, `UNCONFIRMED` (sent, or perhaps sent, and nobody could say in time what became
    /// of it), `REPROCESSED`, `FAILED_AGAIN` (see `failedAs`) or `DISCARDED`.
    #[schema(example = "NEW")]
    pub(crate) state: String,
    /// Since when.
    state_at: DateTime<Utc>,
    /// When it was found.
    indexed_at: DateTime<Utc>,
    /// A replay sends an edited message.
    edited: bool,
    /// How often it was sent back, or tried to be.
    replays: i32,
    /// The last replay: the message has it as its header `dlq-replay-id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    replay_id: Option<Uuid>,
    /// The letter whose replay ended in this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    replay_of: Option<Uuid>,
    /// The letter in which the replay of this one ended: that is the one to act on.
    #[serde(skip_serializing_if = "Option::is_none")]
    failed_as: Option<Uuid>,
}

impl FromRow<'_, PgRow> for LetterView {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let key: Option<Vec<u8>> = row.try_get("key")?;
        Ok(LetterView {
            id: row.try_get("id")?,
            seq: row.try_get("seq")?,
            topic: row.try_get("topic")?,
            partition: row.try_get("partition")?,
            offset: row.try_get("offset")?,
            timestamp: row.try_get("origin_at")?,
            group: row.try_get("group_name")?,
            source_format: row.try_get("source_format")?,
            dlq_topic: row.try_get("dlq_topic")?,
            dlq_partition: row.try_get("dlq_partition")?,
            dlq_offset: row.try_get("dlq_offset")?,
            key: key.as_deref().map(|key| String::from_utf8_lossy(key).into_owned()),
            key_base64: key.map(|key| BASE64_STANDARD.encode(key)),
            size: row.try_get("size")?,
            reason: row.try_get("reason")?,
            error: row.try_get("error")?,
            attempts: row.try_get("attempts")?,
            first_failed_at: row.try_get("first_failed_at")?,
            fingerprint: row.try_get("fingerprint")?,
            truncated: row.try_get("truncated")?,
            saga_id: row.try_get("saga_id")?,
            state: row.try_get("state")?,
            state_at: row.try_get("state_at")?,
            indexed_at: row.try_get("indexed_at")?,
            edited: row.try_get::<i32, _>("edit_number")? > 0,
            replays: row.try_get("replay_number")?,
            replay_id: row.try_get("replay_id")?,
            replay_of: row.try_get("replay_of")?,
            failed_as: row.try_get("failed_as")?,
        })
    }
}

/// So many bytes of a key or a value are shown.
pub(crate) const SHOWN_BYTES: i32 = 64 * 1024;

/// Bytes in two spellings: the first 64 KiB of them.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Bytes {
    /// Two digits a byte.
    hex: String,
    /// As UTF-8; what is none is replaced.
    text: String,
    /// There are more: `GET /api/dlq/messages/{id}/bytes` gives all of them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cut: bool,
}

impl Bytes {
    /// `bytes` are the start of `size`.
    pub(crate) fn of(bytes: &[u8], size: usize) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
        let hex = bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect();
        Bytes { hex, text: String::from_utf8_lossy(bytes).into_owned(), cut: size > bytes.len() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_as_they_are_and_as_text() {
        let bytes = Bytes::of(b"a\0\xff", 3);
        assert_eq!((bytes.hex.as_str(), bytes.text.as_str(), bytes.cut), ("6100ff", "a\0\u{fffd}", false));
        assert!(Bytes::of(b"a", 2).cut);
    }
}
