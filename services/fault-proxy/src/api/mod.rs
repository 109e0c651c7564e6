//! The HTTP interface of Toxiproxy 2.

mod proxies;
mod toxics;

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::USER_AGENT;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use service_kit::{OpenApiRouter, routes};
use utoipa::ToSchema;

use crate::error::{ApiError, ErrorBody};
use crate::registry::Registry;

/// The version of Toxiproxy whose interface this is; clients look at it.
const TOXIPROXY: &str = "2.12.0";

type Proxies = State<Arc<Registry>>;

/// Every route but those that each service has.
pub(crate) fn router(registry: Arc<Registry>) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(proxies::list, proxies::create))
        .routes(routes!(proxies::populate))
        .routes(routes!(proxies::show, proxies::change, proxies::change_by_post, proxies::remove))
        .routes(routes!(toxics::list, toxics::create))
        .routes(routes!(toxics::show, toxics::change, toxics::change_by_post, toxics::remove))
        .routes(routes!(reset))
        .routes(routes!(version))
        .layer(from_fn(refuse_browsers))
        .with_state(registry)
}

/// A page in a browser must not reach this interface; Toxiproxy keeps it out in the same way.
async fn refuse_browsers(request: Request, next: Next) -> Response {
    let agent = request.headers().get(USER_AGENT).map(|agent| agent.as_bytes());
    if agent.is_some_and(|agent| agent.starts_with(b"Mozilla/")) {
        return (StatusCode::FORBIDDEN, "User agent not allowed\n").into_response();
    }
    next.run(request).await
}

/// Enables every proxy and removes every toxic.
#[utoipa::path(
    post,
    path = "/reset",
    responses(
        (status = 204, description = "every proxy is enabled and has no toxic"),
        (status = 500, body = ErrorBody, description = "a port cannot be opened")
    )
)]
async fn reset(State(registry): Proxies) -> Result<StatusCode, ApiError> {
    registry.reset().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Who answers.
#[derive(Serialize, ToSchema)]
struct Version {
    /// The version of Toxiproxy whose interface this is.
    version: &'static str,
    /// This program and its own version.
    server: &'static str,
}

/// The version of the interface.
#[utoipa::path(get, path = "/version", responses((status = 200, body = Version)))]
async fn version() -> Json<Version> {
    Json(Version { version: TOXIPROXY, server: concat!("fault-proxy ", env!("CARGO_PKG_VERSION")) })
}
