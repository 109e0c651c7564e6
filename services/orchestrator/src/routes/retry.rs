use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use service_kit::http::actor;
use service_kit::{ApiJson, ApiPath, Problem};
use uuid::Uuid;

use super::{Api, Reason};
use crate::operator::{Acted, Verb, act};

/// Lets a parked saga go on where it stopped.
#[utoipa::path(post, path = "/api/sagas/{id}/retry", tag = "sagas",
    params(("id" = Uuid, Path, description = "The saga"), ("X-Actor" = Option<String>, Header, description = "Who acts")),
    request_body(content = Option<Reason>),
    responses(
        (status = 200, description = "It goes on", body = Acted),
        (status = 404, description = "There is no such saga", body = Problem),
        (status = 409, description = "It is not parked", body = Problem),
    ))]
pub(crate) async fn retry_saga(
    State(api): State<Api>,
    ApiPath(id): ApiPath<Uuid>,
    headers: HeaderMap,
    body: Option<ApiJson<Reason>>,
) -> Result<Json<Acted>, Problem> {
    let verb = Verb::Retry { reason: Reason::of(body)? };
    act(api.pool, api.definitions, id, verb, actor(&headers)?).await.map(Json)
}
