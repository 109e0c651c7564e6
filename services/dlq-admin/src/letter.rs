//! A dead letter in the one form in which all are kept, whoever wrote it.

mod format;
mod header;

use chrono::{DateTime, Utc};
use messaging::Record;
use uuid::Uuid;

use format::Origin;
pub(crate) use header::{Header, decoded, is_of_letter, stored};

use crate::fingerprint::fingerprint;

const NAMESPACE: Uuid = Uuid::from_u128(0x8f6d_1a52_9c41_4f0e_9d63_2b7e_51c0_44aa);
/// So much of a key is searched.
const KEY_CHARACTERS: usize = 500;
const ERROR_CHARACTERS: usize = 4_000;
const NAME_CHARACTERS: usize = 300;

/// The header that a replayed message carries, and with it the letter it may end in again.
pub const REPLAY_ID: &str = "dlq-replay-id";

/// A dead letter.
#[derive(Clone, Debug)]
pub struct Letter {
    /// From where it comes: the same letter has the same id.
    pub id: Uuid,
    /// Where the message was, by whom it was given up, and why.
    pub origin: Origin,
    /// The same letter with a wider error is another group of errors.
    pub fingerprint: String,
    /// Where the letter lies.
    pub dlq: (String, i32, i64),
    /// When the broker got the letter.
    pub dlq_at: Option<DateTime<Utc>>,
    /// Original key.
    pub key: Option<Vec<u8>>,
    /// The start of the key, to search by.
    pub key_text: Option<String>,
    /// Original value, or its start when `truncated`.
    pub payload: Option<Vec<u8>>,
    /// All headers as JSON.
    pub headers: String,
    /// The letter does not have its whole message.
    pub truncated: bool,
    /// The saga that the message names.
    pub saga: Option<Uuid>,
    /// The replay that ended here.
    pub came_as: Option<Uuid>,
}

impl Letter {
    /// Reads a letter of any shape; what it does not say is made up from where it lies. `prefix` is the deployment's.
    pub fn read(record: &Record, prefix: &str) -> Self {
        let mut origin = Origin::of(record);
        for name in [&mut origin.topic, &mut origin.group] {
            let known = clean(name.strip_prefix(prefix).unwrap_or(name.as_str()), NAME_CHARACTERS);
            *name = known;
        }
        origin.reason = clean(&origin.reason, NAME_CHARACTERS);
        origin.error = clean(&origin.error, ERROR_CHARACTERS);
        let at = origin.at.map_or(-1, |at| at.timestamp_millis());
        let Origin { topic, partition, offset, group, .. } = &origin;
        // The time tells apart what a broker that lost its data puts at the same place.
        let identity = format!("{group}\n{topic}\n{partition}\n{offset}\n{at}");
        let uuid = |name: &str| record.header(name).and_then(|text| Uuid::try_parse(text.trim()).ok());
        Letter {
            id: Uuid::new_v5(&NAMESPACE, identity.as_bytes()),
            fingerprint: fingerprint(topic, group, &origin.reason, &origin.error),
            dlq: (record.topic.clone(), record.partition, record.offset),
            // A producer can claim any time; PostgreSQL knows none before 4713 BC.
            dlq_at: record.timestamp_ms.filter(|millis| *millis >= 0).and_then(DateTime::from_timestamp_millis),
            key_text: record.key.as_deref().map(key_text),
            key: record.key.clone(),
            payload: record.payload.clone(),
            headers: stored(&record.headers),
            truncated: record.header("dlq-truncated-from").is_some(),
            saga: uuid("ce_sagaid"),
            came_as: uuid(REPLAY_ID),
            origin,
        }
    }

    /// What can be listed of it in any case: where it was and lies, in plain characters, and why the rest is missing.
    pub(crate) fn reduced(&self, refusal: &str) -> Self {
        let plain = |text: &str| -> String {
            text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect()
        };
        let mut origin = self.origin.clone();
        for text in [&mut origin.topic, &mut origin.group, &mut origin.reason] {
            *text = plain(text);
        }
        let error = format!("{} (the index refuses the rest of the letter: {refusal})", origin.error);
        origin.error = plain(&error).chars().take(ERROR_CHARACTERS).collect();
        Letter {
            origin,
            key: None,
            key_text: self.key_text.as_deref().map(plain),
            payload: None,
            headers: "[]".to_owned(),
            truncated: true,
            ..self.clone()
        }
    }
}

/// A key as it is searched.
pub(crate) fn key_text(key: &[u8]) -> String {
    clean(&String::from_utf8_lossy(key), KEY_CHARACTERS)
}

/// Text that PostgreSQL can hold: it has no NUL.
pub(crate) fn clean(text: &str, characters: usize) -> String {
    text.chars().map(|c| if c == '\0' { char::REPLACEMENT_CHARACTER } else { c }).take(characters).collect()
}

#[cfg(test)]
mod tests {
    use super::format::Format;
    use super::*;

    #[test]
    fn a_time_that_no_database_knows_is_none() {
        let record = Record { timestamp_ms: Some(i64::MIN / 2), ..record(&[]) };
        assert_eq!(Letter::read(&record, "").dlq_at, None);
    }

    fn record(headers: &[(&str, &[u8])]) -> Record {
        Record {
            topic: "t.dlq".into(),
            partition: 1,
            offset: 7,
            timestamp_ms: Some(1_795_255_200_000),
            key: Some(b"k\0\xff".to_vec()),
            payload: Some(b"\0".to_vec()),
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), Some(value.to_vec()))).collect(),
        }
    }

    #[test]
    fn a_letter_without_headers_is_told_by_where_it_lies() {
        let letter = Letter::read(&record(&[]), "");
        assert_eq!(letter.origin.format, Format::Raw);
        assert_eq!((letter.origin.topic.as_str(), letter.origin.partition, letter.origin.offset), ("t", 1, 7));
        assert_eq!(letter.key_text.as_deref(), Some("k\u{fffd}\u{fffd}"));
        assert_ne!(letter.id, Letter::read(&Record { offset: 8, ..record(&[]) }, "").id);
    }

    #[test]
    fn the_same_letter_at_two_places_is_one() {
        let headers: &[(&str, &[u8])] =
            &[("dlq-topic", b"t"), ("dlq-partition", b"0"), ("dlq-offset", b"5"), ("dlq-timestamp", b"17")];
        let one = Letter::read(&record(headers), "");
        assert_eq!(one.id, Letter::read(&Record { offset: 8, partition: 0, ..record(headers) }, "").id);
        let mut later = headers.to_vec();
        later[3].1 = b"18";
        assert_ne!(one.id, Letter::read(&record(&later), "").id, "another message at the same place");
    }
}
