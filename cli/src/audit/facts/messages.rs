//! What is kept of a message: what the checks ask for, and no more.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use messaging::{Envelope, Record};
use orders::topics::Topic;
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// The last header of a letter that its topic refused whole: it holds only the start of the value.
const TRUNCATED: &str = "dlq-truncated-from";
/// The header of a record that an injected fault has changed on its way to the consumer; `service_kit::chaos::HEADER`.
const CORRUPTED: &str = "chaos-fault";

/// Where a message lies: topic, partition, offset.
pub(in crate::audit) type Place = (Arc<str>, i32, i64);

/// A place as people read it.
pub(in crate::audit) fn at(place: &Place) -> String {
    format!("{}/{}@{}", place.0, place.1, place.2)
}

/// Names that come again and again, each kept once.
#[derive(Default)]
pub(super) struct Names(HashSet<Arc<str>>);

impl Names {
    pub(super) fn get(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.get(name) {
            return known.clone();
        }
        let name: Arc<str> = name.into();
        self.0.insert(name.clone());
        name
    }
}

/// The key of a message: the id of an order, as a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::audit) enum Key {
    /// An id in its usual spelling.
    Order(Uuid),
    /// Anything else.
    Other(Box<str>),
}

impl Key {
    fn of(text: &str) -> Self {
        match text.parse::<Uuid>() {
            Ok(id) if id.to_string() == text => Self::Order(id),
            _ => Self::Other(text.into()),
        }
    }

    /// The order that it names, however it is spelt.
    pub(in crate::audit) fn order(&self) -> Option<Uuid> {
        match self {
            Self::Order(id) => Some(*id),
            Self::Other(text) => text.parse().ok(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Order(id) => id.fmt(f),
            Self::Other(text) => f.write_str(text),
        }
    }
}

/// How often a record has the header [`CORRUPTED`].
fn faults(record: &Record) -> u8 {
    let found = record.headers.iter().filter(|(name, _)| name == CORRUPTED).count();
    u8::try_from(found).unwrap_or(u8::MAX)
}

/// What a dead letter is compared with.
#[derive(Clone, Copy)]
pub(in crate::audit) struct Original {
    /// Over key and value.
    digest: [u8; 32],
    faults: u8,
}

/// A message that the platform could have sent.
pub(in crate::audit) struct Message {
    pub(in crate::audit) id: Uuid,
    pub(in crate::audit) key: Key,
    pub(in crate::audit) place: Place,
    pub(in crate::audit) saga: Option<Uuid>,
    pub(in crate::audit) step: Option<Arc<str>>,
    /// Over the value.
    pub(in crate::audit) digest: [u8; 32],
    /// The id in the value of the thing it tells of: a payment, reservation, or shipment.
    pub(in crate::audit) reference: Option<Uuid>,
    faults: u8,
}

impl Message {
    /// The message in a record of `topic`, or what is wrong with it.
    pub(super) fn of(topic: Topic, record: &Record, place: Place, names: &mut Names) -> Result<Self, String> {
        let envelope = Envelope::of(record).map_err(|poison| poison.to_string())?;
        if envelope.event_type != topic.event_type {
            return Err(format!("ce_type is {}", envelope.event_type));
        }
        let value: Value = record.json().map_err(|poison| poison.to_string())?;
        if !value.is_object() {
            return Err("the value is no JSON object".into());
        }
        let field = |name: &str| value.get(name).and_then(Value::as_str).and_then(|text| text.parse().ok());
        Ok(Self {
            id: envelope.id,
            key: Key::of(&envelope.subject),
            place,
            saga: envelope.saga_id,
            step: envelope.step.as_deref().map(|step| names.get(step)),
            digest: Sha256::digest(record.payload.as_deref().unwrap_or_default()).into(),
            reference: field("paymentId").or_else(|| field("reservationId")).or_else(|| field("shipmentId")),
            faults: faults(record),
        })
    }

    /// As a dead letter may hold it.
    pub(super) fn original(&self) -> Original {
        Original { digest: whole(Some(self.key.to_string().as_bytes()), Some(self.digest)), faults: self.faults }
    }
}

/// What is no message of the platform: nobody can have sent it by the protocol, and nobody can process it.
pub(in crate::audit) struct Foreign {
    /// What is wrong with it.
    pub(in crate::audit) fault: String,
    /// As a dead letter may hold it.
    pub(in crate::audit) original: Original,
}

impl Foreign {
    pub(super) fn of(record: &Record, fault: String) -> Self {
        Self { fault, original: Original { digest: of_record(record), faults: faults(record) } }
    }
}

/// A dead letter.
pub(in crate::audit) struct DeadLetter {
    /// Where it lies itself.
    pub(in crate::audit) place: Place,
    /// Where it came from, when its headers say so.
    pub(in crate::audit) origin: Option<Place>,
    /// The original's key, when it is text.
    pub(in crate::audit) key: Option<String>,
    pub(in crate::audit) group: Option<String>,
    pub(in crate::audit) reason: Option<String>,
    /// Whether it holds the error.
    pub(in crate::audit) has_error: bool,
    /// Over key and value.
    digest: [u8; 32],
    is_cut: bool,
    faults: u8,
}

impl DeadLetter {
    pub(super) fn of(record: &Record, place: Place, names: &mut Names) -> Self {
        let number = |name| record.header(name).and_then(|text| text.parse::<i64>().ok());
        let origin = || {
            let topic = record.header("dlq-topic")?;
            Some((topic, i32::try_from(number("dlq-partition")?).ok()?, number("dlq-offset")?))
        };
        let text = |name| record.header(name).filter(|text| !text.is_empty()).map(str::to_owned);
        Self {
            place,
            origin: origin().map(|(topic, partition, offset)| (names.get(topic), partition, offset)),
            key: record.key.clone().and_then(|key| String::from_utf8(key).ok()),
            group: text("dlq-consumer-group"),
            reason: text("dlq-reason"),
            has_error: text("dlq-error").is_some(),
            digest: of_record(record),
            // The original's headers come before those of the letter, so this one is not the original's.
            is_cut: record.headers.last().is_some_and(|(name, _)| name == TRUNCATED),
            faults: faults(record),
        }
    }

    /// Whether it can be a copy of `original`. A mark excuses other bytes only where the letter got it: one that the
    /// original had already says nothing.
    pub(in crate::audit) fn is_copy_of(&self, original: &Original) -> bool {
        self.is_cut || self.faults > original.faults || self.digest == original.digest
    }
}

fn of_record(record: &Record) -> [u8; 32] {
    whole(record.key.as_deref(), record.payload.as_deref().map(|value| Sha256::digest(value).into()))
}

/// Over the key and the digest of the value; an absent one differs from an empty one.
fn whole(key: Option<&[u8]>, value: Option<[u8; 32]>) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [key, value.as_ref().map(<[u8; 32]>::as_slice)] {
        hash.update([u8::from(part.is_some())]);
        hash.update(part.map_or(0, <[u8]>::len).to_le_bytes());
        hash.update(part.unwrap_or_default());
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use orders::topics::ORDER_CREATED;

    use super::*;

    fn record(value: &[u8], headers: &[&str]) -> Record {
        let headers = headers.iter().map(|name| ((*name).to_owned(), Some(b"1".to_vec()))).collect();
        Record {
            topic: "order.created".into(),
            partition: 0,
            offset: 7,
            timestamp_ms: None,
            key: Some(Uuid::from_u128(5).to_string().into_bytes()),
            payload: Some(value.to_vec()),
            headers,
        }
    }

    fn is_copy(letter: &Record, original: &Record) -> bool {
        let place = || ("order.created".into(), 0, 7);
        let letter = DeadLetter::of(letter, place(), &mut Names::default());
        letter.is_copy_of(&Foreign::of(original, "no envelope".into()).original)
    }

    #[test]
    fn a_letter_may_differ_only_by_a_mark_that_its_original_did_not_have() {
        let ours = "dlq-first-failed-at";
        assert!(is_copy(&record(b"value", &[ours]), &record(b"value", &[])));
        assert!(!is_copy(&record(b"other", &[ours]), &record(b"value", &[])));
        assert!(is_copy(&record(b"other", &[CORRUPTED, ours]), &record(b"value", &[])));
        assert!(is_copy(&record(b"val", &[ours, TRUNCATED]), &record(b"value", &[])));
        // A service's own header hides nothing, and does not make a copy suspicious.
        for mark in [CORRUPTED, TRUNCATED] {
            assert!(!is_copy(&record(b"other", &[mark, ours]), &record(b"value", &[mark])), "{mark}");
            assert!(is_copy(&record(b"value", &[mark, ours]), &record(b"value", &[mark])), "{mark}");
            assert!(is_copy(&record(b"val", &[ours, TRUNCATED]), &record(b"value", &[mark])), "{mark}");
        }
    }

    #[test]
    fn a_message_is_compared_with_its_letters_like_any_record() {
        let mut record = record(b"{}", &[]);
        let key = String::from_utf8(record.key.clone().unwrap()).unwrap();
        for (name, value) in [
            ("ce_specversion", "1.0"),
            ("ce_id", "5b2f4f4e-6a0a-5d7b-9a57-0d7f2f3a4b5c"),
            ("ce_type", ORDER_CREATED.event_type),
            ("ce_source", "/chaos-symphony/order-api"),
            ("ce_subject", &key),
            ("ce_time", "2026-11-21T10:00:00Z"),
        ] {
            record.headers.push((name.to_owned(), Some(value.as_bytes().to_vec())));
        }
        let (mut names, place): (_, Place) = (Names::default(), ("order.created".into(), 0, 7));
        let message = Message::of(ORDER_CREATED, &record, place.clone(), &mut names).expect("a message");
        assert_eq!(message.key, Key::Order(Uuid::from_u128(5)));
        assert!(DeadLetter::of(&record, place.clone(), &mut names).is_copy_of(&message.original()));
        record.payload = Some(b"{} ".to_vec());
        assert!(!DeadLetter::of(&record, place, &mut names).is_copy_of(&message.original()));
    }

    #[test]
    fn a_key_is_told_as_it_was_spelt() {
        for text in ["0190163d-8694-739b-aea5-966c26f8ad91", "0190163D-8694-739B-AEA5-966C26F8AD91", "o-1"] {
            assert_eq!(Key::of(text).to_string(), text);
        }
        assert_eq!(
            Key::of("0190163D-8694-739B-AEA5-966C26F8AD91").order(),
            Key::of("0190163d-8694-739b-aea5-966c26f8ad91").order()
        );
    }
}
