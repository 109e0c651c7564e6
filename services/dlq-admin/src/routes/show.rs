//! `GET /api/dlq/messages/{id}`

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::Serialize;
use service_kit::{ApiPath, Problem};
use sqlx::{FromRow, PgPool};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;
use crate::letter::Header;
use crate::replay::no_letter;
use crate::view::{Bytes, LetterView, SHOWN_BYTES, letter_columns};

/// A letter without its body.
pub const SHOW_LETTER: &str = concat!("SELECT ", letter_columns!(), " FROM letter WHERE id = $1");

/// A letter's body: $2 bytes of it at most.
pub const SHOW_BODY: &str = "
SELECT substr(key, 1, $2) AS key, octet_length(key) AS key_size, substr(payload, 1, $2) AS payload,
    octet_length(payload) AS payload_size, headers::text AS headers, error
FROM letter WHERE id = $1";

/// The edit that a replay sends, $2 bytes of it at most.
pub const SHOW_EDIT: &str = "
SELECT number, substr(key, 1, $2) AS key, octet_length(key) AS key_size, substr(payload, 1, $2) AS payload,
    octet_length(payload) AS payload_size, headers::text AS headers, actor, at
FROM letter_edit WHERE letter_id = $1 ORDER BY number DESC LIMIT 1";

/// What became of a letter: its last steps.
pub const SHOW_HISTORY: &str = "
SELECT at, event, actor, replay_id, detail FROM (
    SELECT id, at, event, actor, replay_id, detail FROM letter_history WHERE letter_id = $1 ORDER BY id DESC LIMIT 500) h
ORDER BY id";

/// A dead letter with all that there is of it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LetterDetail {
    #[serde(flatten)]
    letter: LetterView,
    /// The original value; absent in a tombstone.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Bytes>,
    /// The whole original key.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_bytes: Option<Bytes>,
    /// All headers of the letter, in their order: those of the message, and those that tell why it died.
    headers: Vec<Header>,
    /// Why it died.
    cause: Cause,
    /// The message that a replay sends, when it was edited.
    #[serde(skip_serializing_if = "Option::is_none")]
    edit: Option<EditView>,
    /// What became of it, in order; the last 500 steps.
    history: Vec<Event>,
}

/// Why a message died.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Cause {
    /// The error, whole.
    error: String,
}

/// An edited message.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EditView {
    /// From 1 on.
    number: i32,
    /// Its key.
    key: Option<Bytes>,
    /// Its value.
    payload: Option<Bytes>,
    /// Its headers.
    headers: Vec<Header>,
    /// Who edited it.
    actor: String,
    /// When.
    at: DateTime<Utc>,
}

/// A step of a letter.
#[derive(Debug, Serialize, FromRow, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Event {
    /// When.
    at: DateTime<Utc>,
    /// `EDITED`, `REPLAYING`, `SENT`, `NOT_SENT`, `UNCONFIRMED`, `REPROCESSED`, `FAILED_AGAIN` or `DISCARDED`.
    event: String,
    /// Who did it.
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<String>,
    /// The replay it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    replay_id: Option<Uuid>,
    /// More of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

#[derive(FromRow)]
struct BodyRow {
    key: Option<Vec<u8>>,
    key_size: Option<i32>,
    payload: Option<Vec<u8>>,
    payload_size: Option<i32>,
    headers: String,
    error: String,
}

#[derive(FromRow)]
struct EditRow {
    number: i32,
    key: Option<Vec<u8>>,
    key_size: Option<i32>,
    payload: Option<Vec<u8>>,
    payload_size: Option<i32>,
    headers: String,
    actor: String,
    at: DateTime<Utc>,
}

/// The letter `id`, without its body.
pub(crate) async fn letter(pool: &PgPool, id: Uuid) -> Result<LetterView, Problem> {
    let letter = sqlx::query_as(SHOW_LETTER).bind(id).fetch_optional(pool).await?;
    letter.ok_or_else(|| no_letter(id))
}

/// Shows a dead letter: original bytes (the first 64 KiB), headers, cause and history.
#[utoipa::path(get, path = "/api/dlq/messages/{id}", tag = "messages",
    params(("id" = Uuid, Path, description = "The letter")),
    responses(
        (status = 200, description = "The letter", body = LetterDetail),
        (status = 404, description = "There is no such letter", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn show_message(
    State(api): State<Api>,
    ApiPath(id): ApiPath<Uuid>,
) -> Result<Json<LetterDetail>, Problem> {
    let letter = letter(&api.pool, id).await?;
    let body: BodyRow = sqlx::query_as(SHOW_BODY).bind(id).bind(SHOWN_BYTES).fetch_one(&api.pool).await?;
    let edit: Option<EditRow> = sqlx::query_as(SHOW_EDIT).bind(id).bind(SHOWN_BYTES).fetch_optional(&api.pool).await?;
    let history = sqlx::query_as(SHOW_HISTORY).bind(id).fetch_all(&api.pool).await?;
    let headers_of = |column: &str| serde_json::from_str(column).map_err(Problem::internal);
    let bytes = |bytes: Option<Vec<u8>>, size: Option<i32>| {
        bytes.as_deref().map(|bytes| Bytes::of(bytes, size.and_then(|size| size.try_into().ok()).unwrap_or_default()))
    };
    let edit = edit
        .map(|edit| {
            Ok::<_, Problem>(EditView {
                number: edit.number,
                key: bytes(edit.key, edit.key_size),
                payload: bytes(edit.payload, edit.payload_size),
                headers: headers_of(&edit.headers)?,
                actor: edit.actor,
                at: edit.at,
            })
        })
        .transpose()?;
    Ok(Json(LetterDetail {
        letter,
        payload: bytes(body.payload, body.payload_size),
        key_bytes: bytes(body.key, body.key_size),
        headers: headers_of(&body.headers)?,
        cause: Cause { error: body.error },
        edit,
        history,
    }))
}
