use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use saga::Outcome;
use serde::Deserialize;
use service_kit::http::actor;
use service_kit::{ApiJson, ApiPath, Problem};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Api, checked};
use crate::operator::{Acted, Verb, act};

/// How a parked saga is declared ended.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Resolution {
    /// The end.
    #[schema(value_type = String, example = "CANCELLED")]
    outcome: Outcome,
    /// Why whoever acts answers for it.
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
}

/// Declares a parked saga ended; no command is sent for it any more.
#[utoipa::path(post, path = "/api/sagas/{id}/resolve", tag = "sagas",
    params(("id" = Uuid, Path, description = "The saga"), ("X-Actor" = Option<String>, Header, description = "Who acts")),
    request_body = Resolution,
    responses(
        (status = 200, description = "It has ended", body = Acted),
        (status = 404, description = "There is no such saga", body = Problem),
        (status = 409, description = "It is not parked", body = Problem),
        (status = 422, description = "The outcome or the reason is invalid", body = Problem),
    ))]
pub(crate) async fn resolve_saga(
    State(api): State<Api>,
    ApiPath(id): ApiPath<Uuid>,
    headers: HeaderMap,
    ApiJson(body): ApiJson<Resolution>,
) -> Result<Json<Acted>, Problem> {
    let verb = Verb::Resolve { outcome: body.outcome, reason: checked(body.reason)? };
    act(api.pool, api.definitions, id, verb, actor(&headers)?).await.map(Json)
}
