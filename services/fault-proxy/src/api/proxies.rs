//! `/proxies`, `/proxies/{proxy}` and `/populate`.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::Proxies;
use crate::error::{ApiError, ErrorBody};
use crate::model::{self, NewProxy, ProxyChanges, ProxyView};

/// Every proxy by its name.
#[utoipa::path(get, path = "/proxies", responses((status = 200, body = BTreeMap<String, ProxyView>)))]
pub(super) async fn list(State(registry): Proxies) -> Result<Json<BTreeMap<String, ProxyView>>, ApiError> {
    let mut views = BTreeMap::new();
    for proxy in registry.all().await {
        views.insert(proxy.name().to_owned(), proxy.view().await?);
    }
    Ok(Json(views))
}

/// Makes a proxy, with toxics if any are given: they are there before its first connection.
#[utoipa::path(
    post,
    path = "/proxies",
    request_body = NewProxy,
    responses(
        (status = 201, body = ProxyView),
        (status = 400, body = ErrorBody, description = "no JSON, or a field is missing or wrong"),
        (status = 409, body = ErrorBody, description = "there is one of this name"),
        (status = 500, body = ErrorBody, description = "the port cannot be opened")
    )
)]
pub(super) async fn create(State(registry): Proxies, body: Bytes) -> Result<(StatusCode, Json<ProxyView>), ApiError> {
    let new: NewProxy = model::read(&body)?;
    Ok((StatusCode::CREATED, Json(registry.create(new).await?)))
}

/// The answer to a list of proxies.
#[derive(Serialize, ToSchema)]
pub(super) struct PopulatedView {
    /// Those of the list that are there now.
    proxies: Vec<ProxyView>,
    /// What stopped it.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// The HTTP status code again, if something stopped it.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
}

/// Makes every proxy of a list. One with the same name and addresses stays as it is; another one of the same name is
/// replaced.
#[utoipa::path(
    post,
    path = "/populate",
    request_body = Vec<NewProxy>,
    responses(
        (status = 201, body = PopulatedView),
        (status = 400, body = PopulatedView, description = "no JSON, or a field is missing or wrong"),
        (status = 500, body = PopulatedView, description = "a port cannot be opened")
    )
)]
pub(super) async fn populate(State(registry): Proxies, body: Bytes) -> Result<Response, ApiError> {
    let populated = registry.populate(model::read(&body)?).await;
    let (code, error) = match populated.error {
        None => (StatusCode::CREATED, None),
        Some(error) => (error.status(), Some(error.body())),
    };
    let status = error.as_ref().map(|error| error.status);
    let view = PopulatedView { proxies: populated.proxies, error: error.map(|error| error.error), status };
    Ok((code, Json(view)).into_response())
}

/// One proxy.
#[utoipa::path(
    get,
    path = "/proxies/{proxy}",
    params(("proxy" = String, Path, description = "its name")),
    responses((status = 200, body = ProxyView), (status = 404, body = ErrorBody))
)]
pub(super) async fn show(State(registry): Proxies, Path(name): Path<String>) -> Result<Json<ProxyView>, ApiError> {
    Ok(Json(registry.get(&name).await?.view().await?))
}

/// Enables or disables a proxy, or changes its addresses.
#[utoipa::path(
    patch,
    path = "/proxies/{proxy}",
    params(("proxy" = String, Path, description = "its name")),
    request_body = ProxyChanges,
    responses(
        (status = 200, body = ProxyView),
        (status = 400, body = ErrorBody, description = "no JSON, or a field is wrong"),
        (status = 404, body = ErrorBody),
        (status = 500, body = ErrorBody, description = "the port cannot be opened")
    )
)]
pub(super) async fn change(
    State(registry): Proxies,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Json<ProxyView>, ApiError> {
    let proxy = registry.get(&name).await?;
    proxy.change(model::read(&body)?).await?;
    Ok(Json(proxy.view().await?))
}

/// The same as PATCH, for clients older than Toxiproxy 2.6.
#[utoipa::path(
    post,
    path = "/proxies/{proxy}",
    params(("proxy" = String, Path, description = "its name")),
    request_body = ProxyChanges,
    responses(
        (status = 200, body = ProxyView),
        (status = 400, body = ErrorBody, description = "no JSON, or a field is wrong"),
        (status = 404, body = ErrorBody),
        (status = 500, body = ErrorBody, description = "the port cannot be opened")
    )
)]
pub(super) async fn change_by_post(
    registry: Proxies,
    name: Path<String>,
    body: Bytes,
) -> Result<Json<ProxyView>, ApiError> {
    change(registry, name, body).await
}

/// Removes a proxy and closes its connections.
#[utoipa::path(
    delete,
    path = "/proxies/{proxy}",
    params(("proxy" = String, Path, description = "its name")),
    responses((status = 204, description = "it is gone"), (status = 404, body = ErrorBody))
)]
pub(super) async fn remove(State(registry): Proxies, Path(name): Path<String>) -> Result<StatusCode, ApiError> {
    registry.remove(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}
