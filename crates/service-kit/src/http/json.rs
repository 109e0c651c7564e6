//! Strict JSON: every refusal says where and why.

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::error::Category;
use serde_path_to_error::{Path, Segment};

use crate::problem::{FieldError, Problem};

/// Reads a JSON document whose strings PostgreSQL can store.
///
/// # Errors
/// Those of [`document`]; 422 naming every string that holds U+0000, which PostgreSQL stores in neither `text` nor
/// `jsonb`.
pub fn parse(bytes: &[u8]) -> Result<Value, Problem> {
    let value = document(bytes)?;
    let mut errors = Vec::new();
    find_nul(&value, &mut String::new(), &mut errors);
    if errors.is_empty() { Ok(value) } else { Err(Problem::invalid(errors)) }
}

/// Reads a JSON document, for those who check all of its strings themselves.
///
/// # Errors
/// 400 when it is none: syntax, nesting deeper than 128, lone surrogates, numbers beyond any type.
pub fn document(bytes: &[u8]) -> Result<Value, Problem> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let pointer = pointer(error.path());
        malformed(error.inner(), Some(pointer))
    })?;
    deserializer.end().map_err(|error| malformed(&error, None))?;
    Ok(value)
}

/// Turns a JSON document into `T`.
///
/// # Errors
/// 422 naming the first field that does not fit.
pub fn typed<T: DeserializeOwned>(value: Value) -> Result<T, Problem> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let pointer = pointer(error.path());
        Problem::invalid(vec![FieldError::new(pointer, error.inner().to_string())])
    })
}

fn malformed(error: &serde_json::Error, pointer: Option<String>) -> Problem {
    let problem = match error.classify() {
        Category::Eof => Problem::bad_request("the JSON document ends too early"),
        _ => Problem::bad_request(format!("no valid JSON: {error}")),
    };
    match pointer {
        // Only a value inside the document has a name worth telling.
        Some(pointer) if !pointer.is_empty() => problem.errors(vec![FieldError::new(pointer, error.to_string())]),
        _ => problem,
    }
}

fn pointer(path: &Path) -> String {
    path.iter()
        .map(|segment| match segment {
            Segment::Seq { index } => format!("/{index}"),
            Segment::Map { key } => format!("/{}", escape(key)),
            Segment::Enum { variant } => format!("/{}", escape(variant)),
            Segment::Unknown => String::new(),
        })
        .collect()
}

fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

fn find_nul(value: &Value, path: &mut String, errors: &mut Vec<FieldError>) {
    let length = path.len();
    match value {
        Value::String(text) if text.contains('\0') => {
            errors.push(FieldError::new(path.clone(), "must not contain U+0000"));
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                path.push_str(&format!("/{index}"));
                find_nul(item, path, errors);
                path.truncate(length);
            }
        }
        Value::Object(fields) => {
            for (key, item) in fields {
                path.push_str(&format!("/{}", escape(key)));
                if key.contains('\0') {
                    errors.push(FieldError::new(path.clone(), "a name must not contain U+0000"));
                }
                find_nul(item, path, errors);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_documents_are_a_400() {
        let deep = "[".repeat(1000) + &"]".repeat(1000);
        for text in ["", "{", "{\"a\":NaN}", "[1e999]", "{} x", "\"\\ud800\"", "nul", &deep, "{\"a\":1,}"] {
            assert_eq!(parse(text.as_bytes()).unwrap_err().status, 400, "{text}");
        }
        assert_eq!(parse(b"\"\xff\"").unwrap_err().status, 400);
    }

    #[test]
    fn a_lone_surrogate_names_its_field() {
        let problem = parse(br#"{"shipping":{"name":"\udc00"}}"#).unwrap_err();
        assert_eq!(problem.status, 400);
        assert_eq!(problem.errors[0].pointer.as_deref(), Some("/shipping/name"));
    }

    #[test]
    fn every_string_with_nul_is_named() {
        let problem = parse(br#"{"a":["x","\u0000"],"b/c":"y\u0000"}"#).unwrap_err();
        assert_eq!(problem.status, 422);
        let pointers: Vec<_> = problem.errors.iter().filter_map(|e| e.pointer.as_deref()).collect();
        assert_eq!(pointers, ["/a/1", "/b~1c"]);
    }

    #[test]
    fn a_wrong_type_names_its_field() {
        #[derive(Debug, serde::Deserialize)]
        struct Stock {
            #[allow(dead_code, reason = "only its type matters here")]
            available: u32,
        }
        let problem = typed::<Stock>(parse(br#"{"available":-1}"#).unwrap()).unwrap_err();
        assert_eq!(problem.status, 422);
        assert_eq!(problem.errors[0].pointer.as_deref(), Some("/available"));
    }
}
