//! Lists: a page of items and an opaque cursor to the next.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::http;
use crate::problem::{FieldError, Problem};

/// Items of a page when the request does not say.
pub const DEFAULT_LIMIT: u32 = 50;
/// The most items of a page.
pub const MAX_LIMIT: u32 = 500;

/// One page of a list.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Page<T> {
    /// The items, in the order of the list.
    pub items: Vec<T>,
    /// Pass it as `cursor` to get the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// Makes a page of `limit` items out of up to `limit + 1` rows, the last of which only tells that
    /// there is more. `position` gives what the cursor must hold to go on after an item.
    pub fn from_rows<P: Serialize>(mut rows: Vec<T>, limit: u32, position: impl Fn(&T) -> P) -> Self {
        let limit = limit as usize;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next_cursor = rows.last().filter(|_| more).map(|last| encode_cursor(&position(last)));
        Self { items: rows, next_cursor }
    }

    /// The page with every item converted.
    pub fn map<U>(self, convert: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(convert).collect(), next_cursor: self.next_cursor }
    }
}

/// The number of items asked for: 1 to [`MAX_LIMIT`], [`DEFAULT_LIMIT`] when absent.
///
/// # Errors
/// 400 outside of that.
pub fn limit(requested: Option<u32>) -> Result<u32, Problem> {
    match requested.unwrap_or(DEFAULT_LIMIT) {
        limit @ 1..=MAX_LIMIT => Ok(limit),
        _ => Err(invalid("limit", format!("must be from 1 to {MAX_LIMIT}"))),
    }
}

/// Hides a position in a list from clients, so that they cannot come to depend on its form.
pub fn encode_cursor<P: Serialize>(position: &P) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(position).unwrap_or_default())
}

/// The position that a client sent back, if it sent one.
///
/// # Errors
/// 400 when it is not one of our cursors.
pub fn decode_cursor<P: DeserializeOwned>(cursor: Option<&str>) -> Result<Option<P>, Problem> {
    let Some(cursor) = cursor else { return Ok(None) };
    BASE64_URL_SAFE_NO_PAD
        .decode(cursor)
        .ok()
        // Strictly, as a body: a cursor's strings go to the database.
        .and_then(|bytes| http::parse(&bytes).ok())
        .and_then(|value| serde_json::from_value(value).ok())
        .map(Some)
        .ok_or_else(|| invalid("cursor", "is not a cursor of this list".to_owned()))
}

fn invalid(parameter: &str, detail: String) -> Problem {
    Problem::bad_request(format!("{parameter} {detail}")).errors(vec![FieldError::parameter(parameter, detail)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_went() {
        let position = ("2026-11-21T10:00:00Z".to_owned(), 7_i64);
        let cursor = encode_cursor(&position);
        assert_eq!(decode_cursor(Some(&cursor)).unwrap(), Some(position));
        assert_eq!(decode_cursor::<i64>(None).unwrap(), None);
    }

    #[test]
    fn a_foreign_cursor_is_a_400() {
        let nul = encode_cursor(&("\0", 7));
        for cursor in ["", "!", "bm90IGpzb24", &encode_cursor(&"another list's"), &nul] {
            let problem = decode_cursor::<(String, i64)>(Some(cursor)).unwrap_err();
            assert_eq!(problem.status, 400, "{cursor}");
            assert_eq!(problem.errors[0].parameter.as_deref(), Some("cursor"));
        }
    }

    #[test]
    fn limits_outside_1_to_500_are_a_400() {
        assert_eq!(limit(None).unwrap(), 50);
        assert_eq!(limit(Some(500)).unwrap(), 500);
        assert_eq!(limit(Some(0)).unwrap_err().status, 400);
        assert_eq!(limit(Some(501)).unwrap_err().status, 400);
    }

    #[test]
    fn the_row_too_many_becomes_a_cursor() {
        let page = Page::from_rows(vec![1, 2, 3], 2, |n| *n);
        assert_eq!(page.items, [1, 2]);
        assert_eq!(decode_cursor::<i32>(page.next_cursor.as_deref()).unwrap(), Some(2));
        assert_eq!(Page::from_rows(vec![1, 2], 2, |n| *n).next_cursor, None);
    }
}
