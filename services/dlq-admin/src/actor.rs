//! Who acts, until requests are authenticated.

use axum::http::HeaderMap;
use service_kit::{FieldError, Problem};

const ACTOR_HEADER: &str = "x-actor";
const MAX_ACTOR: usize = 128;

/// Who acts: the header `X-Actor`, or "anonymous".
pub(crate) fn actor(headers: &HeaderMap) -> Result<String, Problem> {
    let Some(value) = headers.get(ACTOR_HEADER) else { return Ok("anonymous".to_owned()) };
    let actor = value.to_str().map(str::trim).unwrap_or_default();
    if actor.is_empty() || actor.len() > MAX_ACTOR {
        let detail = format!("must be 1 to {MAX_ACTOR} visible ASCII characters");
        return Err(
            Problem::bad_request(format!("X-Actor {detail}")).errors(vec![FieldError::parameter("X-Actor", detail)])
        );
    }
    Ok(actor.to_owned())
}
