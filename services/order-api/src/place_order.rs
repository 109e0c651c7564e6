//! `POST /api/orders`.

use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use chrono::{SecondsFormat, SubsecRound, Utc};
use orders::ids::order_created_id;
use orders::messages::OrderCreated;
use serde::Serialize;
use service_kit::http::document;
use service_kit::telemetry::current_traceparent;
use service_kit::{FieldError, Problem, RawJson};
use std::time::Duration;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::idempotency::{self, Claim, InvalidKey};
use crate::insert::{self, NewOrder};
use crate::model::Status;
use crate::validation::{InvalidField, OrderRequest, order_request};
use crate::writer::Placed;
use crate::{Api, metrics};

/// The answer to an accepted order; the same for every repetition of the request.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AcceptedOrder {
    /// The order; `Location` has its URL.
    order_id: Uuid,
    /// Always `PENDING`: the saga has only begun.
    status: Status,
}

/// Places an order.
///
/// The answer is 202 once the order is durable; its saga then runs by itself, and the order's URL tells how it ended.
/// Fields that are not known are ignored.
///
/// With an `Idempotency-Key` the request can be repeated safely, whatever became of the first attempt: the same body
/// gets the same answer and makes no second order.
#[utoipa::path(
    post, path = "/api/orders", tag = "orders",
    params(("Idempotency-Key" = Option<String>, Header, description = "Names this order, chosen by the client; visible ASCII.",
        min_length = 1, max_length = 255)),
    request_body(content = crate::body::NewOrderBody, content_type = "application/json"),
    responses(
        (status = 202, description = "The order is durable", body = AcceptedOrder, headers(
            ("Location" = String, description = "URL of the order"))),
        (status = 400, description = "No JSON, or no valid Idempotency-Key", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "A request with this Idempotency-Key is being worked on", body = Problem,
            content_type = "application/problem+json", headers(("Retry-After" = u32, description = "Seconds"))),
        (status = 413, description = "The body is over 64 KiB", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Every invalid field is named; or the Idempotency-Key was used for another body",
            body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Too busy, too much waits to be published, or the database is down. The outcome may be unknown: repeat the request with the same Idempotency-Key",
            body = Problem, content_type = "application/problem+json", headers(("Retry-After" = u32, description = "Seconds"))),
    )
)]
pub async fn place_order(State(api): State<Api>, headers: HeaderMap, body: RawJson) -> Result<Response, Problem> {
    let key = idempotency::key(&headers).map_err(|error| invalid_key(&error))?;
    let request = order_request(&document(&body.0)?).map_err(invalid_order)?;
    let claim = key.as_deref().map(|key| claim(&api, key)).transpose()?;
    let order = new_order(request, key)?;
    let placed = if api.backlog.is_full() {
        // An order that was accepted stays so, whatever has happened since.
        placed_before(&api, &order).await.ok_or_else(|| refused("backlog", backlog(&api)))?
    } else {
        api.writer.place(order, claim).await
    };
    match placed {
        Placed::Order(id) => Ok(accepted(id)),
        Placed::KeyReused => Err(refused("key-reused", key_reused())),
        Placed::QueueFull => Err(refused("queue-full", Problem::unavailable("too many orders are waiting"))),
        Placed::Unavailable => Err(refused(
            "unavailable",
            Problem::unavailable(
                "the database does not answer; the order may exist, and the same request with the same Idempotency-Key tells",
            ),
        )),
        Placed::Failed => Err(refused("failed", Problem::internal("the database refused the order"))),
    }
}

/// What an earlier request with the same key came to; none when there was none.
async fn placed_before(api: &Api, order: &NewOrder) -> Option<Placed> {
    match insert::known(&api.pool, order).await {
        Ok(known) => known.map(|inserted| Placed::of(order, inserted)),
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "an Idempotency-Key cannot be looked up");
            Some(Placed::Unavailable)
        }
    }
}

fn accepted(id: Uuid) -> Response {
    let answer = AcceptedOrder { order_id: id, status: Status::Pending };
    (StatusCode::ACCEPTED, [(LOCATION, format!("/api/orders/{id}"))], axum::Json(answer)).into_response()
}

fn claim(api: &Api, key: &str) -> Result<Claim, Problem> {
    api.in_flight.claim(key).ok_or_else(|| {
        let problem = Problem::conflict(
            "idempotency-key-in-flight",
            "a request with this Idempotency-Key is being worked on; repeat it to get its answer",
        );
        refused("key-in-flight", problem.retry_after(Duration::from_secs(1)))
    })
}

/// The order with everything that its transaction writes, encoded once.
fn new_order(request: OrderRequest, key: Option<String>) -> Result<NewOrder, Problem> {
    let hash = idempotency::request_hash(&request);
    let id = Uuid::now_v7();
    let created_at = Utc::now().trunc_subsecs(3);
    let event = OrderCreated {
        order_id: id,
        customer_id: request.customer_id,
        currency: request.currency,
        total: request.total,
        items: request.items,
        payment: request.payment,
        shipping: request.shipping,
        created_at,
    };
    let payload = serde_json::to_vec(&event).map_err(Problem::internal)?;
    Ok(NewOrder {
        id,
        customer_id: event.customer_id,
        currency: event.currency.into_string(),
        total: event.total,
        items: event.items,
        key: key.map(|key| (key, hash)),
        event_id: order_created_id(id),
        payload,
        time: created_at.to_rfc3339_opts(SecondsFormat::Millis, true),
        traceparent: current_traceparent(),
    })
}

fn invalid_order(fields: Vec<InvalidField>) -> Problem {
    let errors = fields.into_iter().map(|field| FieldError::new(field.pointer, field.detail)).collect();
    refused("invalid", Problem::invalid(errors))
}

fn invalid_key(error: &InvalidKey) -> Problem {
    let errors = vec![FieldError::parameter("Idempotency-Key", error.to_string())];
    refused("invalid-key", Problem::bad_request(error.to_string()).errors(errors))
}

fn backlog(api: &Api) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "backlog", "Too many orders wait to be published")
        .detail("orders are taken again when those before them are on their way; this request stored nothing")
        .retry_after(api.backlog.retry_after())
}

fn key_reused() -> Problem {
    Problem::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "idempotency-key-reused",
        "The Idempotency-Key was used for another order",
    )
    .detail("take a new key for a new order, or repeat the body that the key was first used with")
}

fn refused(reason: &str, problem: Problem) -> Problem {
    metrics::REFUSED.with_label_values(&[reason]).inc();
    problem
}
