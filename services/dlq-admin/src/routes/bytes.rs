//! `GET /api/dlq/messages/{id}/bytes`

use axum::extract::State;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use service_kit::{ApiPath, ApiQuery, Problem};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;
use crate::replay::no_letter;

/// A whole key or value, as it came.
pub const ORIGINAL_BYTES: &str = "SELECT CASE $2::text WHEN 'key' THEN key ELSE payload END FROM letter WHERE id = $1";

/// A whole key or value, as a replay sends it.
pub const EDITED_BYTES: &str = "
SELECT CASE $2::text WHEN 'key' THEN key ELSE payload END FROM letter_edit WHERE letter_id = $1 ORDER BY number DESC LIMIT 1";

/// A part of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Part {
    /// Its key.
    Key,
    /// Its value.
    #[default]
    Payload,
}

/// Which bytes.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct BytesQuery {
    /// `payload`, unless it says `key`.
    #[serde(default)]
    #[param(inline)]
    part: Part,
    /// Those of the edited message.
    #[serde(default)]
    edited: bool,
}

/// Gives a message's key or value as it is, whole.
#[utoipa::path(get, path = "/api/dlq/messages/{id}/bytes", tag = "messages",
    params(("id" = Uuid, Path, description = "The letter"), BytesQuery),
    responses(
        (status = 200, description = "The bytes", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 404, description = "There is no such letter, no edit of it, or it has no such part", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(crate) async fn message_bytes(
    State(api): State<Api>,
    ApiPath(id): ApiPath<Uuid>,
    ApiQuery(BytesQuery { part, edited }): ApiQuery<BytesQuery>,
) -> Result<Response, Problem> {
    let statement = if edited { EDITED_BYTES } else { ORIGINAL_BYTES };
    let name = if part == Part::Key { "key" } else { "payload" };
    let bytes: Option<Option<Vec<u8>>> =
        sqlx::query_scalar(statement).bind(id).bind(name).fetch_optional(&api.pool).await?;
    match bytes {
        None if edited => Err(Problem::not_found(format!("there is no edit of a dead letter {id}"))),
        None => Err(no_letter(id)),
        Some(None) => Err(Problem::not_found(format!("the message has no {name}"))),
        Some(Some(bytes)) => {
            // No browser is to make anything of what somebody else has sent.
            let headers = [
                (CONTENT_TYPE, "application/octet-stream"),
                (CONTENT_DISPOSITION, "attachment"),
                (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            ];
            Ok((headers, bytes).into_response())
        }
    }
}
