//! The layers around every route, in one ordered list.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::header::{CONNECTION, EXPECT, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, Method, StatusCode, Uri};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use tokio::sync::Semaphore;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::{Instrument, Span, field};

use super::extract::too_large;
use crate::config::HttpConfig;
use crate::health::Health;
use crate::metrics::{self, InProgress};
use crate::problem::{Cause, Problem, chain};
use crate::telemetry;

/// The most bytes read of a body that is refused anyway, so that the client, still sending, gets to read
/// the refusal and can use the connection again.
const DISCARD_AT_MOST: usize = 1 << 20;

#[derive(Clone)]
struct Limits {
    health: Health,
    in_flight: Arc<Semaphore>,
    request_timeout: Duration,
    body_limit: usize,
}

/// The service's routes and `ops` (health, metrics, documentation) with their layers.
pub(crate) fn router(service: Router, ops: Router, config: &HttpConfig, health: &Health) -> Router {
    let limits = Limits {
        health: health.clone(),
        in_flight: Arc::new(Semaphore::new(config.max_in_flight)),
        request_timeout: config.request_timeout(),
        body_limit: config.body_limit_bytes,
    };
    let panics = CatchPanicLayer::custom(panicked);
    // Each `.layer` goes around those above it: read from the bottom, the way of a request.
    service
        // Bodies of unknown length; those that tell it are refused by `limit_body`.
        .layer(DefaultBodyLimit::max(config.body_limit_bytes))
        .layer(from_fn_with_state(limits.clone(), limit_body))
        // Inside the shed: the time starts when work does.
        .layer(from_fn_with_state(limits.clone(), limit_time))
        .layer(from_fn_with_state(limits.clone(), shed_overload))
        .layer(from_fn_with_state(limits.clone(), refuse_until_started))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        // Inside the trace, which so sees a panic as the 500 it is.
        .layer(panics)
        .layer(from_fn(trace))
        // Health and metrics are answered whatever the load, to say why, and leave no traces.
        .merge(ops.method_not_allowed_fallback(method_not_allowed).layer(panics))
        .layer(from_fn(measure))
        .layer(from_fn_with_state(limits, finish))
}

/// Outermost: headers that every response has.
async fn finish(State(limits): State<Limits>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if limits.health.is_draining() {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn measure(request: Request, next: Next) -> Response {
    let active = InProgress::request();
    let started = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    let route = route.as_ref().map(MatchedPath::as_str);
    metrics::observe_request(&method, route, response.status(), started.elapsed());
    drop(active);
    response
}

/// One span a request, parented on the caller's, and the one place where failures are logged.
async fn trace(request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map(MatchedPath::as_str);
    let name = route.map_or_else(|| method.to_string(), |route| format!("{method} {route}"));
    let traceparent = telemetry::incoming_or_new(request.headers());
    let span = tracing::info_span!(
        "request",
        otel.name = name,
        otel.kind = "server",
        otel.status_code = field::Empty,
        http.request.method = %method,
        http.route = route,
        url.path = request.uri().path(),
        http.response.status_code = field::Empty,
        trace_id = field::Empty,
    );
    telemetry::continue_trace(&span, request.headers());
    let traceparent = messaging::trace::traceparent_of(&span).unwrap_or(traceparent);
    span.record("trace_id", telemetry::trace_id(&traceparent));

    let response = telemetry::with_traceparent(traceparent, next.run(request)).instrument(span.clone()).await;
    span.in_scope(|| report(&span, &response));
    response
}

fn report(span: &Span, response: &Response) {
    let status = response.status();
    span.record("http.response.status_code", status.as_u16());
    let cause = response.extensions().get::<Cause>().map(|cause| chain(&*cause.0));
    let cause = cause.as_deref();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        span.record("otel.status_code", "ERROR");
        tracing::warn!(status = status.as_u16(), cause, "request refused");
    } else if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
        tracing::error!(status = status.as_u16(), cause, "request failed");
    } else {
        tracing::debug!(status = status.as_u16(), cause, "request answered");
    }
}

#[derive(Debug, thiserror::Error)]
#[error("panic: {0}")]
struct Panicked(String);

fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let message = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "of an unknown kind".to_owned());
    Problem::internal(Panicked(message)).into_response()
}

async fn refuse_until_started(State(limits): State<Limits>, request: Request, next: Next) -> Response {
    if limits.health.is_started() {
        next.run(request).await
    } else {
        Problem::unavailable("the service is starting").into_response()
    }
}

/// Beyond the limit a quick "later" helps more than a queue that makes everybody late.
async fn shed_overload(State(limits): State<Limits>, request: Request, next: Next) -> Response {
    let Ok(permit) = limits.in_flight.try_acquire() else {
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "The service is overloaded")
            .detail("too many requests are in progress")
            .retry_after(Duration::from_secs(1))
            .into_response();
    };
    let response = next.run(request).await;
    drop(permit);
    response
}

async fn limit_time(State(limits): State<Limits>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(limits.request_timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", "The request took too long")
            .detail("its outcome is unknown: ask for it, or send it again with the same Idempotency-Key")
            .retry_after(Duration::from_secs(1))
            .into_response(),
    }
}

async fn limit_body(State(limits): State<Limits>, request: Request, next: Next) -> Response {
    if request.body().size_hint().lower() <= limits.body_limit as u64 {
        return next.run(request).await;
    }
    // A client that asks first has not sent anything yet.
    if !request.headers().contains_key(EXPECT) {
        discard(request.into_body()).await;
    }
    too_large().detail(format!("at most {} bytes", limits.body_limit)).into_response()
}

async fn discard(body: Body) {
    let mut read = 0;
    let mut chunks = body.into_data_stream();
    while let Some(Ok(chunk)) = chunks.next().await {
        read += chunk.len();
        if read > DISCARD_AT_MOST {
            break;
        }
    }
}

async fn not_found(uri: Uri) -> Problem {
    Problem::not_found(format!("there is nothing at {}", uri.path()))
}

async fn method_not_allowed(method: Method, uri: Uri) -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed")
        .detail(format!("{} does not take {method}", uri.path()))
}
