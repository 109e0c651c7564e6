//! `/proxies/{proxy}/toxics` and `/proxies/{proxy}/toxics/{toxic}`. A change is on its way to every open connection when
//! it is answered: what a client sends after that feels it.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;

use super::Proxies;
use crate::error::{ApiError, ErrorBody};
use crate::model::{self, NewToxic, ToxicChanges, ToxicView};

/// The toxics of a proxy, those of the upstream direction first.
#[utoipa::path(
    get,
    path = "/proxies/{proxy}/toxics",
    params(("proxy" = String, Path, description = "its name")),
    responses((status = 200, body = Vec<ToxicView>), (status = 404, body = ErrorBody))
)]
pub(super) async fn list(
    State(registry): Proxies,
    Path(proxy): Path<String>,
) -> Result<Json<Vec<ToxicView>>, ApiError> {
    Ok(Json(registry.get(&proxy).await?.toxics()?))
}

/// Puts a toxic behind the others.
#[utoipa::path(
    post,
    path = "/proxies/{proxy}/toxics",
    params(("proxy" = String, Path, description = "its name")),
    request_body = NewToxic,
    responses(
        (status = 200, body = ToxicView),
        (status = 400, body = ErrorBody, description = "no JSON, or stream, type or an attribute is wrong"),
        (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody, description = "there is one of this name")
    )
)]
pub(super) async fn create(
    State(registry): Proxies,
    Path(proxy): Path<String>,
    body: Bytes,
) -> Result<Json<ToxicView>, ApiError> {
    let proxy = registry.get(&proxy).await?;
    let new: NewToxic = model::read(&body)?;
    Ok(Json(proxy.add_toxic(new)?))
}

/// One toxic.
#[utoipa::path(
    get,
    path = "/proxies/{proxy}/toxics/{toxic}",
    params(("proxy" = String, Path, description = "its name"), ("toxic" = String, Path, description = "its name")),
    responses((status = 200, body = ToxicView), (status = 404, body = ErrorBody))
)]
pub(super) async fn show(
    State(registry): Proxies,
    Path((proxy, toxic)): Path<(String, String)>,
) -> Result<Json<ToxicView>, ApiError> {
    Ok(Json(registry.get(&proxy).await?.toxic(&toxic)?))
}

/// Changes toxicity or attributes of a toxic.
#[utoipa::path(
    patch,
    path = "/proxies/{proxy}/toxics/{toxic}",
    params(("proxy" = String, Path, description = "its name"), ("toxic" = String, Path, description = "its name")),
    request_body = ToxicChanges,
    responses(
        (status = 200, body = ToxicView),
        (status = 400, body = ErrorBody, description = "no JSON, or a value is wrong"),
        (status = 404, body = ErrorBody)
    )
)]
pub(super) async fn change(
    State(registry): Proxies,
    Path((proxy, toxic)): Path<(String, String)>,
    body: Bytes,
) -> Result<Json<ToxicView>, ApiError> {
    let proxy = registry.get(&proxy).await?;
    // A toxic that is not there comes before a body that is wrong.
    proxy.toxic(&toxic)?;
    let changes: ToxicChanges = model::read(&body)?;
    Ok(Json(proxy.change_toxic(&toxic, &changes)?))
}

/// The same as PATCH, for clients older than Toxiproxy 2.6.
#[utoipa::path(
    post,
    path = "/proxies/{proxy}/toxics/{toxic}",
    params(("proxy" = String, Path, description = "its name"), ("toxic" = String, Path, description = "its name")),
    request_body = ToxicChanges,
    responses(
        (status = 200, body = ToxicView),
        (status = 400, body = ErrorBody, description = "no JSON, or a value is wrong"),
        (status = 404, body = ErrorBody)
    )
)]
pub(super) async fn change_by_post(
    registry: Proxies,
    path: Path<(String, String)>,
    body: Bytes,
) -> Result<Json<ToxicView>, ApiError> {
    change(registry, path, body).await
}

/// Removes a toxic. What it held back goes on at once; a connection whose bytes a `timeout` has swallowed is closed.
#[utoipa::path(
    delete,
    path = "/proxies/{proxy}/toxics/{toxic}",
    params(("proxy" = String, Path, description = "its name"), ("toxic" = String, Path, description = "its name")),
    responses((status = 204, description = "it is gone"), (status = 404, body = ErrorBody))
)]
pub(super) async fn remove(
    State(registry): Proxies,
    Path((proxy, toxic)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    registry.get(&proxy).await?.remove_toxic(&toxic)?;
    Ok(StatusCode::NO_CONTENT)
}
