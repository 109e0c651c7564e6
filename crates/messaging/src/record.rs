use std::panic::AssertUnwindSafe;

use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use serde::de::DeserializeOwned;

use crate::dead_letter::HEADERS_DROPPED;

/// A message as the broker gave it, with the topic's name as the platform knows it (without prefix).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Topic without the deployment's prefix.
    pub topic: String,
    /// Partition it was read from.
    pub partition: i32,
    /// Offset in that partition.
    pub offset: i64,
    /// Broker timestamp, milliseconds since 1970.
    pub timestamp_ms: Option<i64>,
    /// Key, as bytes.
    pub key: Option<Vec<u8>>,
    /// Value, as bytes; `None` is a tombstone.
    pub payload: Option<Vec<u8>>,
    /// Headers in their order; a name can occur twice. Headers whose name is not UTF-8 are not among them; when there
    /// were such, the last one here is [`HEADERS_DROPPED`](crate::dead_letter::HEADERS_DROPPED).
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// Why a message can never be processed, however often it is tried.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct Poison {
    /// Stable, kebab-case; the header `dlq-reason` of its dead letter.
    pub reason: &'static str,
    /// What was wrong with this message.
    pub detail: String,
}

impl Poison {
    /// A poison with its stable `reason` and what was wrong.
    pub fn new(reason: &'static str, detail: impl Into<String>) -> Self {
        Poison { reason, detail: detail.into() }
    }
}

/// The headers whose names are UTF-8. rdkafka panics at any other, and a record that brings its reader down would come
/// again for ever; such a header is none that anybody here looks for. How many there were is said in one more.
fn readable(headers: &BorrowedHeaders) -> Vec<(String, Option<Vec<u8>>)> {
    let header = |index| {
        let header = std::panic::catch_unwind(AssertUnwindSafe(|| headers.get(index))).ok()?;
        Some((header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
    };
    let mut readable: Vec<_> = (0..headers.count()).filter_map(header).collect();
    let dropped = headers.count() - readable.len();
    if dropped > 0 {
        readable.push((HEADERS_DROPPED.to_owned(), Some(dropped.to_string().into_bytes())));
    }
    readable
}

impl Record {
    /// A copy of `message`, its topic without `prefix`.
    pub(crate) fn copy_of(message: &BorrowedMessage<'_>, prefix: &str) -> Self {
        let topic = message.topic();
        Record {
            topic: topic.strip_prefix(prefix).unwrap_or(topic).to_owned(),
            partition: message.partition(),
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis(),
            key: message.key().map(<[u8]>::to_vec),
            payload: message.payload().map(<[u8]>::to_vec),
            headers: message.headers().map_or_else(Vec::new, readable),
        }
    }

    /// One to be sent: the broker has given it no place yet. Without headers.
    pub fn unsent(topic: impl Into<String>, key: Option<Vec<u8>>, payload: Option<Vec<u8>>) -> Self {
        Record { topic: topic.into(), partition: 0, offset: 0, timestamp_ms: None, key, payload, headers: Vec::new() }
    }

    /// The headers as they go on the wire.
    pub(crate) fn wire_headers(&self) -> OwnedHeaders {
        let headers = OwnedHeaders::new_with_capacity(self.headers.len());
        self.headers
            .iter()
            .fold(headers, |headers, (key, value)| headers.insert(Header { key, value: value.as_deref() }))
    }

    /// Bytes of key, value and headers.
    pub fn size(&self) -> usize {
        let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + length(value)).sum();
        length(&self.key) + length(&self.payload) + headers
    }

    /// The value parsed as JSON.
    ///
    /// # Errors
    /// `empty-payload` for a tombstone or no bytes, `invalid-json` for anything that does not parse as `T`
    /// (nesting over 128 levels too).
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Poison> {
        match self.payload.as_deref() {
            None | Some([]) => Err(Poison::new("empty-payload", "the message has no value")),
            Some(bytes) => {
                serde_json::from_slice(bytes).map_err(|error| Poison::new("invalid-json", error.to_string()))
            }
        }
    }

    /// The last header called `name` that holds text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().rev().find(|(header, _)| header == name)?;
        std::str::from_utf8(value.as_deref()?).ok()
    }
}
