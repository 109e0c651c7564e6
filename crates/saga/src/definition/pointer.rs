//! JSON Pointers (RFC 6901), checked once when a definition is read.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A JSON Pointer that has been checked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pointer {
    text: String,
    tokens: Vec<String>,
}

/// What is wrong with the text of a pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPointer {
    #[error("a JSON Pointer starts with \"/\"")]
    NoSlash,
    #[error("\"~\" in a JSON Pointer is written \"~0\", and \"/\" in a name \"~1\"")]
    BadEscape,
}

impl Pointer {
    /// Reads a pointer of at least one name.
    ///
    /// # Errors
    /// When it does not start with `/`, or `~` is not followed by 0 or 1.
    pub fn parse(text: &str) -> Result<Self, InvalidPointer> {
        let rest = text.strip_prefix('/').ok_or(InvalidPointer::NoSlash)?;
        let tokens = rest.split('/').map(unescape).collect::<Result<_, _>>()?;
        Ok(Self { text: text.to_owned(), tokens })
    }

    /// The names on the way, unescaped.
    #[must_use]
    pub fn tokens(&self) -> &[String] {
        &self.tokens
    }

    /// The value it points to, if there is one.
    #[must_use]
    pub fn find<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        descend(value, &self.tokens)
    }
}

/// Follows names and array indices from `value`.
pub(crate) fn descend<'v>(value: &'v Value, tokens: &[String]) -> Option<&'v Value> {
    tokens.iter().try_fold(value, |at, token| match at {
        Value::Object(fields) => fields.get(token),
        Value::Array(items) => index(token).and_then(|i| items.get(i)),
        _ => None,
    })
}

/// An array index has no sign and no leading zero.
fn index(token: &str) -> Option<usize> {
    let canonical = token == "0" || !token.starts_with(['0', '+']);
    token.parse().ok().filter(|_| canonical)
}

fn unescape(token: &str) -> Result<String, InvalidPointer> {
    let mut out = String::with_capacity(token.len());
    let mut chars = token.chars();
    while let Some(c) = chars.next() {
        out.push(match c {
            '~' => match chars.next() {
                Some('0') => '~',
                Some('1') => '/',
                _ => return Err(InvalidPointer::BadEscape),
            },
            other => other,
        });
    }
    Ok(out)
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for Pointer {
    type Error = InvalidPointer;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<Pointer> for String {
    fn from(pointer: Pointer) -> Self {
        pointer.text
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn finds_fields_and_items_by_escaped_names() {
        let value = json!({"a/b": [{"m~n": 1}, 2], "01": 3});
        let find = |text| Pointer::parse(text).expect("valid").find(&value).cloned();
        assert_eq!(find("/a~1b/0/m~0n"), Some(json!(1)));
        assert_eq!(find("/a~1b/1"), Some(json!(2)));
        assert_eq!(find("/a~1b/01"), None);
        assert_eq!(find("/a~1b/+1"), None);
        assert_eq!(find("/01"), Some(json!(3)));
        assert_eq!(find("/nothing/here"), None);
    }

    #[test]
    fn refuses_what_is_no_pointer() {
        assert_eq!(Pointer::parse("trigger/total"), Err(InvalidPointer::NoSlash));
        assert_eq!(Pointer::parse(""), Err(InvalidPointer::NoSlash));
        assert_eq!(Pointer::parse("/a~2"), Err(InvalidPointer::BadEscape));
        assert_eq!(Pointer::parse("/a~"), Err(InvalidPointer::BadEscape));
    }
}
