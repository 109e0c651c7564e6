//! The HTTP API, one file a route.

use std::sync::Arc;

use saga::SagaState;
use serde::Deserialize;
use service_kit::{ApiJson, FieldError, OpenApiRouter, Problem, routes};
use sqlx::PgPool;
use utoipa::ToSchema;

use crate::definitions::Definitions;
use crate::operator::MAX_REASON;

mod compensate;
pub(crate) mod definitions;
pub(crate) mod list;
mod resolve;
mod retry;
pub(crate) mod show;

/// What every route needs.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) pool: PgPool,
    pub(crate) definitions: Arc<Definitions>,
}

pub(crate) fn router(pool: PgPool, definitions: Arc<Definitions>) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(list::list_sagas))
        .routes(routes!(show::show_saga))
        .routes(routes!(retry::retry_saga))
        .routes(routes!(compensate::compensate_saga))
        .routes(routes!(resolve::resolve_saga))
        .routes(routes!(definitions::list_definitions))
        .routes(routes!(definitions::show_definition))
        .with_state(Api { pool, definitions })
}

/// The body of `retry` and `compensate`; there need not be one.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reason {
    /// Why, for the audit and the saga's timeline.
    #[schema(max_length = 500)]
    reason: Option<String>,
}

impl Reason {
    /// The reason of a body, if there is a body and it has one.
    fn of(body: Option<ApiJson<Reason>>) -> Result<Option<String>, Problem> {
        let Some(ApiJson(Reason { reason: Some(reason) })) = body else { return Ok(None) };
        checked(reason).map(Some)
    }
}

/// A reason that can be kept.
fn checked(reason: String) -> Result<String, Problem> {
    match reason.trim().chars().count() {
        1..=MAX_REASON => Ok(reason),
        _ => {
            let detail = format!("must be 1 to {MAX_REASON} characters");
            Err(Problem::invalid(vec![FieldError::new("/reason", detail)]))
        }
    }
}

/// The state of that name in a query.
fn state(name: Option<&str>) -> Result<Option<SagaState>, Problem> {
    let Some(name) = name else { return Ok(None) };
    SagaState::from_name(name).map(Some).ok_or_else(|| {
        let names = SagaState::ALL.map(SagaState::as_str).join(", ");
        Problem::bad_request(format!("state must be one of {names}"))
            .errors(vec![FieldError::parameter("state", format!("must be one of {names}"))])
    })
}
