//! Who writes dead letters, and how each says what happened.

use chrono::{DateTime, Utc};
use messaging::Record;

/// Whose headers a letter has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `dlq-*`, text.
    Symphony,
    /// Spring Kafka: `kafka_dlt-*`, numbers big-endian.
    Spring,
    /// Kafka Connect: `__connect.errors.*`, text.
    Connect,
    /// None: only the message itself.
    Raw,
}

impl Format {
    /// As it is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Symphony => "symphony",
            Format::Spring => "spring",
            Format::Connect => "connect",
            Format::Raw => "raw",
        }
    }
}

/// Where a message was that could not be processed, by whom, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Whose headers told this.
    pub format: Format,
    /// The topic that it was on.
    pub topic: String,
    /// Its partition there.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// When the broker got it.
    pub at: Option<DateTime<Utc>>,
    /// The consumer group; empty when nobody says.
    pub group: String,
    /// A short stable word.
    pub reason: String,
    /// The error in words.
    pub error: String,
    /// How often it was tried.
    pub attempts: Option<i32>,
    /// When it first failed.
    pub first_failed_at: Option<DateTime<Utc>>,
}

impl Origin {
    /// Reads the headers of whichever format there is. Headers that do not say where the message was count for nothing.
    pub(super) fn of(record: &Record) -> Self {
        symphony(record).or_else(|| spring(record)).or_else(|| connect(record)).unwrap_or_else(|| raw(record))
    }
}

/// The last header called `name`: whoever handled the message last has added its own behind the others.
fn bytes<'r>(record: &'r Record, name: &str) -> Option<&'r [u8]> {
    record.headers.iter().rev().find(|(header, _)| header == name)?.1.as_deref()
}

fn text(record: &Record, name: &str) -> Option<String> {
    let text = String::from_utf8_lossy(bytes(record, name)?).into_owned();
    Some(text).filter(|text| !text.is_empty())
}

fn number<T: std::str::FromStr>(record: &Record, name: &str) -> Option<T> {
    text(record, name)?.trim().parse().ok()
}

/// Java writes numbers big-endian, in as many bytes as their type has. Other clients may have written text.
fn java_number(record: &Record, name: &str) -> Option<i64> {
    let bytes = bytes(record, name)?;
    match bytes.len() {
        4 => Some(i32::from_be_bytes(bytes.try_into().ok()?).into()),
        8 => Some(i64::from_be_bytes(bytes.try_into().ok()?)),
        1 if !bytes[0].is_ascii_digit() => Some(i8::from_be_bytes([bytes[0]]).into()),
        _ => std::str::from_utf8(bytes).ok()?.trim().parse().ok(),
    }
}

fn time(millis: Option<i64>) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_millis(millis.filter(|millis| *millis >= 0)?)
}

fn symphony(record: &Record) -> Option<Origin> {
    Some(Origin {
        format: Format::Symphony,
        topic: text(record, "dlq-topic")?,
        partition: number(record, "dlq-partition")?,
        offset: number(record, "dlq-offset")?,
        at: time(number(record, "dlq-timestamp")),
        group: text(record, "dlq-consumer-group").unwrap_or_default(),
        reason: text(record, "dlq-reason").unwrap_or_else(|| "unknown".to_owned()),
        error: text(record, "dlq-error").unwrap_or_default(),
        attempts: number(record, "dlq-attempts"),
        first_failed_at: text(record, "dlq-first-failed-at")
            .and_then(|text| DateTime::parse_from_rfc3339(&text).ok())
            .map(|time| time.with_timezone(&Utc)),
    })
}

fn spring(record: &Record) -> Option<Origin> {
    let text = |name: &str| text(record, &format!("kafka_dlt-{name}"));
    let number = |name: &str| java_number(record, &format!("kafka_dlt-{name}"));
    // The cause is what happened; the exception around it is always the listener's.
    let class = text("exception-cause-fqcn").or(text("exception-fqcn")).or(text("key-exception-fqcn"));
    Some(Origin {
        format: Format::Spring,
        topic: text("original-topic")?,
        partition: i32::try_from(number("original-partition")?).ok()?,
        offset: number("original-offset")?,
        at: time(number("original-timestamp")),
        group: text("original-consumer-group").unwrap_or_default(),
        reason: class.as_deref().map_or_else(|| "unknown".to_owned(), simple_name),
        error: text("exception-message").or(text("key-exception-message")).or(class).unwrap_or_default(),
        attempts: java_number(record, "retry_topic-attempts").and_then(|attempts| i32::try_from(attempts).ok()),
        first_failed_at: None,
    })
}

fn connect(record: &Record) -> Option<Origin> {
    let name = |name: &str| format!("__connect.errors.{name}");
    let text = |header: &str| text(record, &name(header));
    let class = text("exception.class.name");
    let stage = text("stage").map(|stage| format!("{stage}: ")).unwrap_or_default();
    Some(Origin {
        format: Format::Connect,
        topic: text("topic")?,
        partition: number(record, &name("partition"))?,
        offset: number(record, &name("offset"))?,
        at: None,
        // Connect names the group of a sink after its connector.
        group: text("connector.name").map(|connector| format!("connect-{connector}")).unwrap_or_default(),
        reason: class.as_deref().map_or_else(|| "unknown".to_owned(), simple_name),
        error: stage + &text("exception.message").or(class).unwrap_or_default(),
        attempts: None,
        first_failed_at: None,
    })
}

fn raw(record: &Record) -> Origin {
    Origin {
        format: Format::Raw,
        topic: record.topic.strip_suffix(".dlq").unwrap_or(&record.topic).to_owned(),
        partition: record.partition,
        offset: record.offset,
        at: time(record.timestamp_ms),
        group: String::new(),
        reason: "unknown".to_owned(),
        error: String::new(),
        attempts: None,
        first_failed_at: None,
    }
}

/// `SerializationException` of `org.apache.kafka.common.errors.SerializationException`.
fn simple_name(class: &str) -> String {
    class.rsplit(['.', '$']).next().unwrap_or(class).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(headers: &[(&str, &[u8])]) -> Record {
        Record {
            topic: "orders.dlq".into(),
            partition: 0,
            offset: 1,
            timestamp_ms: None,
            key: None,
            payload: None,
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), Some(value.to_vec()))).collect(),
        }
    }

    #[test]
    fn spring_says_it_in_big_endian_numbers_and_the_last_hop_counts() {
        let origin = Origin::of(&record(&[
            ("kafka_dlt-original-topic", b"first"),
            ("kafka_dlt-original-topic", b"orders"),
            ("kafka_dlt-original-partition", &3_i32.to_be_bytes()),
            ("kafka_dlt-original-offset", &4_000_000_000_i64.to_be_bytes()),
            ("kafka_dlt-original-timestamp", &1_795_255_200_000_i64.to_be_bytes()),
            ("kafka_dlt-original-consumer-group", b"billing"),
            ("kafka_dlt-exception-fqcn", b"org.springframework.kafka.listener.ListenerExecutionFailedException"),
            ("kafka_dlt-exception-cause-fqcn", b"java.lang.IllegalStateException"),
            ("kafka_dlt-exception-message", b"no such order"),
            ("retry_topic-attempts", &4_i32.to_be_bytes()),
        ]));
        assert_eq!(origin.format, Format::Spring);
        assert_eq!((origin.topic.as_str(), origin.partition, origin.offset), ("orders", 3, 4_000_000_000));
        assert_eq!(origin.at.map(|at| at.timestamp_millis()), Some(1_795_255_200_000));
        assert_eq!((origin.group.as_str(), origin.reason.as_str()), ("billing", "IllegalStateException"));
        assert_eq!((origin.error.as_str(), origin.attempts), ("no such order", Some(4)));
    }

    #[test]
    fn connect_says_it_in_text() {
        let origin = Origin::of(&record(&[
            ("__connect.errors.topic", b"orders"),
            ("__connect.errors.partition", b"2"),
            ("__connect.errors.offset", b"99"),
            ("__connect.errors.connector.name", b"sink"),
            ("__connect.errors.stage", b"VALUE_CONVERTER"),
            ("__connect.errors.exception.class.name", b"org.apache.kafka.connect.errors.DataException"),
            ("__connect.errors.exception.message", b"not JSON"),
        ]));
        assert_eq!((origin.topic.as_str(), origin.partition, origin.offset), ("orders", 2, 99));
        assert_eq!((origin.group.as_str(), origin.reason.as_str()), ("connect-sink", "DataException"));
        assert_eq!(origin.error, "VALUE_CONVERTER: not JSON");
    }

    #[test]
    fn headers_that_do_not_say_where_it_was_count_for_nothing() {
        let lost = record(&[("dlq-topic", b"orders"), ("dlq-partition", b"zero"), ("dlq-offset", b"1")]);
        assert_eq!(Origin::of(&lost).format, Format::Raw);
        assert_eq!(Origin::of(&record(&[("kafka_dlt-original-topic", b"x")])).format, Format::Raw);
    }
}
