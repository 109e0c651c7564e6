//! Headers as they are stored: JSON in which text is text and other bytes are base64.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Header {
    /// Its name; it can occur twice.
    pub(crate) name: String,
    /// Its value, when that is text.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) text: Option<String>,
    /// Its value otherwise; neither of both: it has none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) base64: Option<String>,
}

/// Name and value, as Kafka has them.
pub(crate) type Headers = Vec<(String, Option<Vec<u8>>)>;

/// What the column holds.
pub(crate) fn stored(headers: &[(String, Option<Vec<u8>>)]) -> String {
    let headers: Vec<Header> = headers
        .iter()
        .map(|(name, value)| {
            // NUL is text to UTF-8, but not to PostgreSQL.
            let text = value.as_deref().and_then(|value| std::str::from_utf8(value).ok());
            let text = text.filter(|text| !text.contains('\0')).map(str::to_owned);
            let base64 = if text.is_none() { value.as_ref().map(|value| BASE64_STANDARD.encode(value)) } else { None };
            Header { name: name.clone(), text, base64 }
        })
        .collect();
    serde_json::to_string(&headers).expect("strings are JSON")
}

/// The headers of a column.
///
/// # Errors
/// When it holds something else.
pub(crate) fn decoded(column: &str) -> Result<Headers, serde_json::Error> {
    let headers: Vec<Header> = serde_json::from_str(column)?;
    Ok(headers
        .into_iter()
        .map(|Header { name, text, base64 }| {
            let value = text.map(String::into_bytes);
            // Only `stored` wrote it.
            (name, value.or_else(|| base64.and_then(|base64| BASE64_STANDARD.decode(base64).ok())))
        })
        .collect())
}

/// Whether a header was added with the letter, and is no part of its message.
pub(crate) fn is_of_letter(name: &str) -> bool {
    ["dlq-", "kafka_dlt-", "retry_topic-", "__connect.errors.", "springDeserializerException"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_as_they_went() {
        let headers: Headers = vec![
            ("ce_id".into(), Some(b"one".to_vec())),
            ("ce_id".into(), Some(b"two".to_vec())),
            ("nul".into(), Some(b"a\0b".to_vec())),
            ("bytes".into(), Some(vec![0xff, 0xfe])),
            ("empty".into(), Some(Vec::new())),
            ("none".into(), None),
        ];
        let column = stored(&headers);
        assert!(!column.contains("\\u0000"), "{column}");
        assert_eq!(decoded(&column).unwrap(), headers);
    }

    #[test]
    fn what_was_added_with_the_letter_is_told_from_the_message() {
        assert!(is_of_letter("dlq-replay-id") && is_of_letter("__connect.errors.topic"));
        assert!(is_of_letter("kafka_dlt-original-topic") && !is_of_letter("ce_id") && !is_of_letter("traceparent"));
    }
}
