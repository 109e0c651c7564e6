use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::{Poison, Record};

/// The most bytes of a key, of the name of a step and of a trace context. Answers repeat them: one that made its answer too
/// large for any topic could never be answered.
const MAX_NAME_BYTES: usize = 256;

/// The CloudEvents 1.0 attributes of a message in Kafka's binary mode, with the platform's extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// `ce_id`: the message's identity. The same message sent again has the same id.
    pub id: Uuid,
    /// `ce_type`, versioned: `com.chaossymphony.payment.requested.v1`.
    pub event_type: String,
    /// `ce_source`: who sent it.
    pub source: String,
    /// `ce_subject`: what it is about; equal to the Kafka key.
    pub subject: String,
    /// `ce_time`: when the fact it carries was stored, not when it was sent.
    pub time: DateTime<Utc>,
    /// `ce_sagaid`: the saga it belongs to.
    pub saga_id: Option<Uuid>,
    /// `ce_step`: the saga's step it belongs to.
    pub step: Option<String>,
    /// `ce_causationid`: the id of the command that it answers.
    pub causation_id: Option<Uuid>,
    /// W3C trace context.
    pub traceparent: Option<String>,
}

impl Envelope {
    /// Reads the attributes of `record` and checks that its key is its subject.
    ///
    /// # Errors
    /// `invalid-key`, `missing-header`, `invalid-header`, `unsupported-specversion`, `key-subject-mismatch`.
    pub fn of(record: &Record) -> Result<Self, Poison> {
        let key = record.key.as_deref().ok_or_else(|| Poison::new("invalid-key", "the message has no key"))?;
        let key = std::str::from_utf8(key)
            .ok()
            .filter(|key| !key.is_empty())
            .ok_or_else(|| Poison::new("invalid-key", "the key is empty or not UTF-8"))?;
        let version = required(record, "ce_specversion")?;
        if version != "1.0" {
            return Err(Poison::new("unsupported-specversion", format!("ce_specversion is {version:?}, not \"1.0\"")));
        }
        let subject = required(record, "ce_subject")?;
        if subject != key {
            return Err(Poison::new(
                "key-subject-mismatch",
                format!("the key is {key:?} but ce_subject is {subject:?}"),
            ));
        }
        let step = record.header("ce_step");
        for (name, text) in [("the key", Some(key)), ("ce_step", step)] {
            if text.is_some_and(|text| text.len() > MAX_NAME_BYTES) {
                return Err(Poison::new("invalid-header", format!("{name} is longer than {MAX_NAME_BYTES} bytes")));
            }
        }
        Ok(Envelope {
            id: uuid("ce_id", required(record, "ce_id")?)?,
            event_type: required(record, "ce_type")?.to_owned(),
            source: required(record, "ce_source")?.to_owned(),
            subject: subject.to_owned(),
            time: time(required(record, "ce_time")?)?,
            saga_id: record.header("ce_sagaid").map(|value| uuid("ce_sagaid", value)).transpose()?,
            step: step.map(str::to_owned),
            causation_id: record.header("ce_causationid").map(|value| uuid("ce_causationid", value)).transpose()?,
            traceparent: record.header("traceparent").filter(|text| text.len() <= MAX_NAME_BYTES).map(str::to_owned),
        })
    }

    /// What stands in for the envelope of a record that is read [raw](crate::Consumer::raw): it may have none.
    /// Only the subject says something: the record's key.
    pub(crate) fn absent(record: &Record) -> Self {
        Envelope {
            id: Uuid::nil(),
            event_type: String::new(),
            source: String::new(),
            subject: String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()).into_owned(),
            time: DateTime::UNIX_EPOCH,
            saga_id: None,
            step: None,
            causation_id: None,
            traceparent: None,
        }
    }

    /// The saga this message belongs to.
    ///
    /// # Errors
    /// `missing-header` when there is no `ce_sagaid`.
    pub fn saga(&self) -> Result<Uuid, Poison> {
        self.saga_id.ok_or_else(|| missing("ce_sagaid"))
    }

    /// The saga's step this message belongs to.
    ///
    /// # Errors
    /// `missing-header` when there is no `ce_step`.
    pub fn saga_step(&self) -> Result<&str, Poison> {
        self.step.as_deref().ok_or_else(|| missing("ce_step"))
    }

    /// The command this message answers.
    ///
    /// # Errors
    /// `missing-header` when there is no `ce_causationid`.
    pub fn causation(&self) -> Result<Uuid, Poison> {
        self.causation_id.ok_or_else(|| missing("ce_causationid"))
    }
}

fn missing(name: &str) -> Poison {
    Poison::new("missing-header", format!("the header {name} is missing"))
}

fn required<'r>(record: &'r Record, name: &str) -> Result<&'r str, Poison> {
    record.header(name).filter(|value| !value.is_empty()).ok_or_else(|| missing(name))
}

fn uuid(name: &str, value: &str) -> Result<Uuid, Poison> {
    Uuid::try_parse(value).map_err(|error| Poison::new("invalid-header", format!("{name} is not a UUID: {error}")))
}

fn time(value: &str) -> Result<DateTime<Utc>, Poison> {
    DateTime::parse_from_rfc3339(value)
        .map(|time| time.with_timezone(&Utc))
        .map_err(|error| Poison::new("invalid-header", format!("ce_time is not an RFC 3339 time: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let headers = [
            ("ce_specversion", "1.0"),
            ("ce_id", "5b2f4f4e-6a0a-5d7b-9a57-0d7f2f3a4b5c"),
            ("ce_type", "com.chaossymphony.payment.requested.v1"),
            ("ce_source", "/chaos-symphony/orchestrator"),
            ("ce_subject", "o-1"),
            ("ce_time", "2026-11-21T10:00:00.123456Z"),
        ];
        Record {
            topic: "payment.requested".into(),
            partition: 0,
            offset: 7,
            timestamp_ms: None,
            key: Some(b"o-1".to_vec()),
            payload: Some(b"{}".to_vec()),
            headers: headers.map(|(name, value)| (name.to_owned(), Some(value.as_bytes().to_vec()))).to_vec(),
        }
    }

    fn with(name: &str, value: Option<&[u8]>) -> Record {
        let mut record = record();
        record.headers.retain(|(header, _)| header != name);
        record.headers.push((name.to_owned(), value.map(<[u8]>::to_vec)));
        record
    }

    fn reason(record: &Record) -> &'static str {
        Envelope::of(record).expect_err("the record is refused").reason
    }

    #[test]
    fn reads_every_attribute_of_a_good_message() {
        let envelope = Envelope::of(&record()).expect("a good message");
        assert_eq!(envelope.subject, "o-1");
        assert_eq!(envelope.event_type, "com.chaossymphony.payment.requested.v1");
        assert_eq!(envelope.saga_id, None);
    }

    #[test]
    fn names_what_is_wrong_with_a_bad_one() {
        assert_eq!(reason(&with("ce_id", Some(b"seven"))), "invalid-header");
        assert_eq!(reason(&with("ce_id", None)), "missing-header");
        assert_eq!(reason(&with("ce_type", Some(b"\xff\xfe"))), "missing-header");
        assert_eq!(reason(&with("ce_time", Some(b"yesterday"))), "invalid-header");
        assert_eq!(reason(&with("ce_specversion", Some(b"0.3"))), "unsupported-specversion");
        assert_eq!(reason(&with("ce_subject", Some(b"o-2"))), "key-subject-mismatch");
        assert_eq!(reason(&with("ce_step", Some(&[b's'; 257]))), "invalid-header");
        assert_eq!(reason(&Record { key: None, ..record() }), "invalid-key");
        assert_eq!(reason(&Record { key: Some(vec![0xff]), ..record() }), "invalid-key");
    }
}
