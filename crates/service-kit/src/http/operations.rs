//! The routes that every service has: health, metrics, documentation.

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use utoipa::openapi::OpenApi;
use utoipa_swagger_ui::SwaggerUi;

use crate::health::{DependencyReport, Health, State as HealthState};
use crate::metrics;
use crate::problem::{CONTENT_TYPE_PROBLEM, Problem};

/// `/livez`, `/readyz`, their aliases, `/metrics`, `/openapi.json`, `/docs`.
pub(crate) fn routes(health: Health, openapi: OpenApi) -> Router {
    let health = Router::new()
        .route("/livez", get(live))
        .route("/health", get(live))
        .route("/readyz", get(ready))
        .route("/ready", get(ready))
        .with_state(health);
    Router::new()
        .route("/metrics", get(exposition))
        .merge(health)
        .merge(SwaggerUi::new("/docs").url("/openapi.json", openapi))
}

#[derive(Serialize)]
struct Status {
    state: HealthState,
    #[serde(skip_serializing_if = "Option::is_none")]
    dependencies: Option<Vec<DependencyReport>>,
}

#[derive(Serialize)]
struct NotReady {
    #[serde(flatten)]
    problem: Problem,
    #[serde(flatten)]
    status: Status,
}

/// The process answers, so it lives. Nothing else is asked: a restart mends no database.
async fn live() -> Response {
    json(StatusCode::OK, "application/json", &serde_json::json!({ "state": "live" }))
}

async fn ready(State(health): State<Health>, RawQuery(query): RawQuery) -> Response {
    let report = health.report().await;
    let verbose = query.is_some_and(|query| is_verbose(&query));
    let summary = report.summary();
    let status = Status { state: report.state, dependencies: verbose.then_some(report.dependencies) };
    if status.state == HealthState::Ready {
        return json(StatusCode::OK, "application/json", &status);
    }
    let code = StatusCode::SERVICE_UNAVAILABLE;
    let problem = Problem::new(code, "not-ready", "The service is not ready").detail(summary);
    json(code, CONTENT_TYPE_PROBLEM, &NotReady { problem, status })
}

/// `?verbose`, `?verbose=true`, but not `?verbose=false`.
fn is_verbose(query: &str) -> bool {
    query.split('&').any(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        name == "verbose" && value != "false"
    })
}

async fn exposition() -> Result<Response, Problem> {
    let text = metrics::render().map_err(Problem::internal)?;
    Ok(([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}

fn json(code: StatusCode, content_type: &'static str, body: &impl Serialize) -> Response {
    let body = serde_json::to_vec(body).unwrap_or_default();
    let headers =
        [(CONTENT_TYPE, HeaderValue::from_static(content_type)), (CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    (code, headers, body).into_response()
}
