//! Errors of the HTTP API as RFC 9457 problem details.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::BoxError;

/// Every problem type is this and a slug. The types are stable: clients may compare them.
pub const TYPE_BASE: &str = "https://chaossymphony.dev/problems/";

/// The media type of problem details.
pub const CONTENT_TYPE_PROBLEM: &str = "application/problem+json";

/// An error answer.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Problem {
    /// Stable URI of the kind of problem.
    #[serde(rename = "type", serialize_with = "type_uri")]
    #[schema(value_type = String)]
    pub slug: &'static str,
    /// The kind of problem, in words.
    pub title: &'static str,
    /// The HTTP status code.
    pub status: u16,
    /// What went wrong this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub detail: Option<Box<str>>,
    /// The resource or request that it happened to.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub instance: Option<Box<str>>,
    /// Every invalid field.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// Members of this kind of problem alone.
    #[serde(skip)]
    #[schema(ignore)]
    more: Option<Box<Map<String, Value>>>,
    #[serde(skip)]
    #[schema(ignore)]
    retry_after_seconds: Option<u16>,
    #[serde(skip)]
    #[schema(ignore)]
    cause: Option<Cause>,
}

/// What is wrong with one field or parameter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// JSON Pointer into the body; the empty pointer is the whole body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// Name of a query or path parameter, or of a header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameter: Option<String>,
    /// What is wrong with it.
    pub detail: String,
}

impl FieldError {
    /// An error at a JSON Pointer of the body, such as `/items/0/quantity`.
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: Some(pointer.into()), parameter: None, detail: detail.into() }
    }

    /// An error of a query or path parameter, or of a header.
    pub fn parameter(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: None, parameter: Some(name.into()), detail: detail.into() }
    }
}

/// The internal reason of a problem. It never leaves the process: the response carries it as an
/// extension to the outermost layer, which logs it once, with the request.
#[derive(Debug, Clone)]
pub(crate) struct Cause(pub(crate) Arc<dyn Error + Send + Sync>);

/// An error and every source below it, on one line, for the log.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

impl Problem {
    /// A problem of a kind of its own: `slug` is kebab-case and never changes.
    pub fn new(status: StatusCode, slug: &'static str, title: &'static str) -> Self {
        Self {
            slug,
            title,
            status: status.as_u16(),
            detail: None,
            instance: None,
            errors: Vec::new(),
            more: None,
            retry_after_seconds: None,
            cause: None,
        }
    }

    /// 400: the request cannot be read.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed-request", "The request is malformed").detail(detail)
    }

    /// 404: there is no such thing.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "Not found").detail(detail)
    }

    /// 409: the state of the resource forbids it.
    pub fn conflict(slug: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, slug, "The request conflicts with the current state").detail(detail)
    }

    /// 422: the request can be read, but these fields are invalid.
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        let detail = match errors.len() {
            1 => "1 field is invalid".to_owned(),
            count => format!("{count} fields are invalid"),
        };
        Self {
            errors,
            ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-request", "The request is invalid").detail(detail)
        }
    }

    /// 503: try the same request again in a second.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Temporarily unavailable")
            .detail(detail)
            .retry_after(Duration::from_secs(1))
    }

    /// 500: a defect. The client learns nothing of `cause`; the log does, once.
    pub fn internal(cause: impl Into<BoxError>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error").caused_by(cause)
    }

    /// Says what went wrong this time.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into().into());
        self
    }

    /// Names the resource it happened to.
    #[must_use]
    pub fn instance(mut self, instance: impl Into<String>) -> Self {
        self.instance = Some(instance.into().into());
        self
    }

    /// Names every invalid field.
    #[must_use]
    pub fn errors(mut self, errors: Vec<FieldError>) -> Self {
        self.errors = errors;
        self
    }

    /// Adds a member of its own, as RFC 9457 allows: what a client needs to go on.
    #[must_use]
    pub fn member(mut self, name: &str, value: Value) -> Self {
        self.more.get_or_insert_default().insert(name.to_owned(), value);
        self
    }

    /// Sets `Retry-After`, in whole seconds, from 1 to 65,535.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after_seconds = Some(u16::try_from(wait.as_secs()).unwrap_or(u16::MAX).max(1));
        self
    }

    /// Keeps the internal reason for the log.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Into<BoxError>) -> Self {
        self.cause = Some(Cause(Arc::from(cause.into())));
        self
    }
}

impl Problem {
    fn body(&self) -> serde_json::Result<Vec<u8>> {
        let Some(more) = &self.more else { return serde_json::to_vec(self) };
        let mut body = serde_json::to_value(self)?;
        if let Some(members) = body.as_object_mut() {
            members.extend(more.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
        serde_json::to_vec(&body)
    }
}

fn type_uri<S: Serializer>(slug: &&'static str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{TYPE_BASE}{slug}"))
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        if crate::db::is_unavailable(&error) {
            Self::unavailable("the database does not answer").caused_by(error)
        } else {
            Self::internal(error)
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // Strings, numbers and lists of them: nothing here can fail to serialize.
        let body = self.body().unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE_PROBLEM));
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(cause) = self.cause {
            response.extensions_mut().insert(cause);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use serde_json::json;

    use super::*;

    async fn answer(problem: Problem) -> (StatusCode, Option<String>, Value) {
        let response = problem.into_response();
        assert_eq!(response.headers()[CONTENT_TYPE], CONTENT_TYPE_PROBLEM);
        let status = response.status();
        let retry_after = response.headers().get(RETRY_AFTER).map(|value| value.to_str().unwrap().to_owned());
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, retry_after, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn a_problem_names_every_field() {
        let errors = vec![FieldError::new("/items/0/quantity", "must be from 1 to 1000")];
        let (status, _, body) = answer(Problem::invalid(errors)).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(
            body,
            json!({
                "type": "https://chaossymphony.dev/problems/invalid-request",
                "title": "The request is invalid",
                "status": 422,
                "detail": "1 field is invalid",
                "errors": [{ "pointer": "/items/0/quantity", "detail": "must be from 1 to 1000" }],
            })
        );
    }

    #[tokio::test]
    async fn a_database_that_is_down_is_a_503_with_retry_after() {
        let (status, retry_after, _) = answer(Problem::from(sqlx::Error::PoolTimedOut)).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(retry_after.as_deref(), Some("1"));
    }

    #[tokio::test]
    async fn a_problem_has_members_of_its_own_kind() {
        let problem = Problem::conflict("saga-ended", "too late").member("saga", json!({ "state": "COMPLETED" }));
        let (_, _, body) = answer(problem).await;
        assert_eq!(body["saga"]["state"], "COMPLETED");
        assert_eq!(body["detail"], "too late");
    }

    #[tokio::test]
    async fn a_defect_tells_the_client_nothing() {
        let (status, _, body) = answer(Problem::from(sqlx::Error::ColumnNotFound("secret_column".into()))).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!body.to_string().contains("secret_column"), "{body}");
    }

    #[test]
    fn a_cause_is_logged_with_its_sources() {
        let problem = Problem::internal(std::io::Error::other(sqlx::Error::PoolClosed));
        assert!(chain(&*problem.cause.unwrap().0).contains("closed pool"));
    }
}
