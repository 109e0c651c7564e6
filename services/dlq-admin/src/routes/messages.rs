//! Acts on one letter.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::json;
use service_kit::db::detached;
use service_kit::http::actor;
use service_kit::{ApiJson, ApiPath, FieldError, Problem};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;
use super::show::letter;
use crate::audit::Act;
use crate::discard::{discard, reason};
use crate::edit::{Changes, edit};
use crate::view::LetterView;

const MAX_KEY: usize = 255;

/// Why a letter is given up.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reason {
    /// Kept in the letter's history and in the audit.
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
}

/// Sends a letter's message back to its topic: the original one, or the edited one if there is an edit.
///
/// It is sent once, however many ask. The same call again gets the answer of the first: with the same `Idempotency-Key`
/// always, without one while the message is on its way; any other gets 409. A letter that is UNCONFIRMED is sent again as
/// the same message. It goes to the topic whose dead letters its letter lies on, and to no other. A message that belongs to
/// the course of a saga which has ended is refused; the problem has the saga with its timeline.
#[utoipa::path(post, path = "/api/dlq/messages/{id}/replay", tag = "messages",
    params(
        ("id" = Uuid, Path, description = "The letter"),
        ("X-Actor" = Option<String>, Header, description = "Who acts"),
        ("Idempotency-Key" = Option<String>, Header, description = "Up to 255 characters"),
    ),
    responses(
        (status = 202, description = "It is sent; whether it is processed is seen in its state", body = LetterView),
        (status = 404, description = "There is no such letter", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It is not new, it is cut, it must not go there, or its saga has ended", body = Problem,
            content_type = "application/problem+json"),
        (status = 422, description = "The broker does not take it", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The orchestrator or the database does not answer", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(crate) async fn replay_message(
    State(api): State<Api>,
    ApiPath(id): ApiPath<Uuid>,
    headers: HeaderMap,
) -> Result<(StatusCode, Json<LetterView>), Problem> {
    let (actor, key) = (actor(&headers)?, idempotency_key(&headers)?);
    api.replays.clone().one(id, actor, key).await?;
    Ok((StatusCode::ACCEPTED, Json(letter(&api.pool, id).await?)))
}

/// Repairs a letter's message. The original is kept; a later replay sends the edited one instead.
///
/// On a topic of the order application the result must be a message that its readers can process. Each edit starts from
/// the original.
#[utoipa::path(put, path = "/api/dlq/messages/{id}", tag = "messages",
    params(("id" = Uuid, Path, description = "The letter"), ("X-Actor" = Option<String>, Header, description = "Who acts")),
    request_body = Changes,
    responses(
        (status = 200, description = "It is edited", body = LetterView),
        (status = 404, description = "There is no such letter", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It is not new, it is cut, or it must not go back", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Its readers could not process it", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(crate) async fn edit_message(
    State(api): State<Api>,
    ApiPath(id): ApiPath<Uuid>,
    headers: HeaderMap,
    body: Result<ApiJson<Changes>, Problem>,
) -> Result<Json<LetterView>, Problem> {
    let actor = actor(&headers)?;
    let changes = Act::on_letter("edit", &actor, id, json!({})).read(&api.pool, body).await?;
    let (pool, replays) = (api.pool.clone(), api.replays.clone());
    detached(async move { edit(&pool, replays.targets(), id, changes, &actor).await }).await?;
    Ok(Json(letter(&api.pool, id).await?))
}

/// Gives a letter up, with a reason.
#[utoipa::path(post, path = "/api/dlq/messages/{id}/discard", tag = "messages",
    params(("id" = Uuid, Path, description = "The letter"), ("X-Actor" = Option<String>, Header, description = "Who acts")),
    request_body = Reason,
    responses(
        (status = 200, description = "It is discarded", body = LetterView),
        (status = 404, description = "There is no such letter", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It is not new", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The reason is missing", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn discard_message(
    State(api): State<Api>,
    ApiPath(id): ApiPath<Uuid>,
    headers: HeaderMap,
    body: Result<ApiJson<Reason>, Problem>,
) -> Result<Json<LetterView>, Problem> {
    let actor = actor(&headers)?;
    let Reason { reason: given } = Act::on_letter("discard", &actor, id, json!({})).read(&api.pool, body).await?;
    if let Err(error) = reason(&given) {
        let act = Act::on_letter("discard", &actor, id, json!({ "reason": given }));
        return Err(act.refused(&api.pool, Problem::invalid(vec![error])).await);
    }
    let pool = api.pool.clone();
    detached(async move { discard(&pool, id, given.trim(), &actor).await }).await?;
    Ok(Json(letter(&api.pool, id).await?))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    match value.to_str() {
        Ok(key) if (1..=MAX_KEY).contains(&key.len()) => Ok(Some(key.to_owned())),
        _ => {
            let detail = format!("must be 1 to {MAX_KEY} visible ASCII characters");
            let error = FieldError::parameter("Idempotency-Key", detail.clone());
            Err(Problem::bad_request(format!("Idempotency-Key {detail}")).errors(vec![error]))
        }
    }
}
