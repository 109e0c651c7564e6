//! Who acts, until requests are authenticated.

use axum::http::HeaderMap;

use crate::problem::{FieldError, Problem};

const HEADER: &str = "x-actor";
const MAX_LENGTH: usize = 128;

/// Who acts: the header `X-Actor`, or "anonymous".
///
/// # Errors
/// 400 when the header is not 1 to 128 visible ASCII characters; spaces around them do not count.
pub fn actor(headers: &HeaderMap) -> Result<String, Problem> {
    let Some(value) = headers.get(HEADER) else { return Ok("anonymous".to_owned()) };
    let actor = value.to_str().map(str::trim).unwrap_or_default();
    if actor.is_empty() || actor.len() > MAX_LENGTH {
        let detail = format!("must be 1 to {MAX_LENGTH} visible ASCII characters");
        return Err(
            Problem::bad_request(format!("X-Actor {detail}")).errors(vec![FieldError::parameter("X-Actor", detail)])
        );
    }
    Ok(actor.to_owned())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn of(value: &[u8]) -> Result<String, Problem> {
        actor(&HeaderMap::from_iter([(HEADER.parse().unwrap(), HeaderValue::from_bytes(value).unwrap())]))
    }

    #[test]
    fn an_actor_has_1_to_128_visible_characters_and_nobody_is_anonymous() {
        assert_eq!(actor(&HeaderMap::new()).unwrap(), "anonymous");
        assert_eq!(of(b" ada ").unwrap(), "ada");
        assert_eq!(of(&[b'a'; 128]).unwrap().len(), 128);
        for bad in [&b""[..], b"  ", &[b'a'; 129], "zoé".as_bytes()] {
            let problem = of(bad).unwrap_err();
            assert_eq!((problem.status, problem.errors[0].parameter.as_deref()), (400, Some("X-Actor")), "{bad:?}");
        }
    }
}
