//! `POST /api/dlq/discards`

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use serde_json::json;
use service_kit::db::detached;
use service_kit::http::actor;
use service_kit::{ApiJson, Problem};

use super::Api;
use crate::audit::Act;
use crate::discard::{Discarded, Discards, discard_many};

/// Gives up all letters that match, with a reason, or with `dryRun` tells how many they are.
#[utoipa::path(post, path = "/api/dlq/discards", tag = "messages",
    params(("X-Actor" = Option<String>, Header, description = "Who acts")),
    request_body = Discards,
    responses(
        (status = 200, description = "They are discarded", body = Discarded),
        (status = 422, description = "There is no condition or no reason", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(crate) async fn discard_messages(
    State(api): State<Api>,
    headers: HeaderMap,
    body: Result<ApiJson<Discards>, Problem>,
) -> Result<Json<Discarded>, Problem> {
    let actor = actor(&headers)?;
    let asked = Act::on_many("discard-many", &actor, json!({})).read(&api.pool, body).await?;
    detached(async move { discard_many(&api.pool, &asked, &actor).await }).await.map(Json)
}
