//! One text for one meaning: JSON with sorted keys and no spaces, and its hash.

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Canonical JSON of anything that serialises to JSON.
pub(super) fn canonical_json<T: Serialize>(value: &T) -> String {
    let value = serde_json::to_value(value).expect("types of this crate serialise: string keys, no I/O");
    let mut out = String::new();
    write_canonical(&value, &mut out);
    out
}

/// SHA-256 as lower-case hex.
pub(super) fn digest(text: &str) -> String {
    use std::fmt::Write as _;
    Sha256::digest(text.as_bytes()).iter().fold(String::with_capacity(64), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("a String takes everything");
        hex
    })
}

/// Does not rely on the order in which `serde_json` keeps an object: a feature that any crate of the build
/// can turn on decides about that.
pub(crate) fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut sorted: Vec<(&String, &Value)> = fields.iter().collect();
            sorted.sort_unstable_by_key(|(name, _)| *name);
            write_joined(out, ['{', '}'], sorted, |(name, field), out| {
                write_scalar(&Value::String(name.clone()), out);
                out.push(':');
                write_canonical(field, out);
            });
        }
        Value::Array(items) => write_joined(out, ['[', ']'], items, write_canonical),
        scalar => write_scalar(scalar, out),
    }
}

fn write_joined<I: IntoIterator>(
    out: &mut String,
    [open, close]: [char; 2],
    items: I,
    write: impl Fn(I::Item, &mut String),
) {
    out.push(open);
    for (i, item) in items.into_iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        write(item, out);
    }
    out.push(close);
}

fn write_scalar(value: &Value, out: &mut String) {
    out.push_str(&value.to_string());
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_are_sorted_at_every_depth() {
        let value = json!({"b": [{"z": 1, "a": "x\n\"y"}, null], "a": true});
        assert_eq!(canonical_json(&value), r#"{"a":true,"b":[{"a":"x\n\"y","z":1},null]}"#);
    }

    #[test]
    fn the_digest_is_sha256_in_hex() {
        assert_eq!(digest("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
