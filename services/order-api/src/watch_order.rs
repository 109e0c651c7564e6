//! `GET /api/orders/{id}/events`.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use chrono::{DateTime, Utc};
use futures_util::{Stream, stream};
use serde::Serialize;
use service_kit::{ApiPath, CancellationToken, Problem};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::Api;
use crate::get_order::not_found;
use crate::model::Status;
use crate::status_feed::{self, Snapshot, Subscription};

/// The data of a `status` event.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatusEvent {
    order_id: Uuid,
    status: Status,
    /// Why it was cancelled or parked.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// When the status changed.
    updated_at: DateTime<Utc>,
}

/// Streams an order's status.
///
/// Server-sent events of type `status`: the current one at once, then every later one. The stream ends after
/// `COMPLETED` or `CANCELLED`, and stays open at `PARKED`. A client that reconnects starts with the current status.
#[utoipa::path(
    get, path = "/api/orders/{id}/events", tag = "orders",
    params(("id" = Uuid, Path, description = "The order")),
    responses(
        (status = 200, description = "Events; the data of each is a StatusEvent", body = StatusEvent, content_type = "text/event-stream"),
        (status = 400, description = "The id is none", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such order", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Too many watchers, or the database is down", body = Problem,
            content_type = "application/problem+json", headers(("Retry-After" = u32, description = "Seconds"))),
    )
)]
pub async fn watch_order(
    State(api): State<Api>,
    ApiPath(id): ApiPath<Uuid>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let current = status_feed::read(&api.pool, &[id]).await?.remove(&id).ok_or_else(|| not_found(id))?;
    let subscription = api
        .feed
        .subscribe(id, current)
        .ok_or_else(|| Problem::unavailable("too many orders are watched").retry_after(Duration::from_secs(5)))?;
    let keep_alive = KeepAlive::new().interval(Duration::from_millis(api.keep_alive_ms));
    Ok(Sse::new(events(id, subscription, api.shutdown.clone())).keep_alive(keep_alive))
}

/// Ends with the order, or with the service: a stream that stays open would hold up its shutdown.
fn events(
    id: Uuid,
    subscription: Subscription,
    shutdown: CancellationToken,
) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold((subscription, shutdown), move |(mut subscription, shutdown)| async move {
        let snapshot = tokio::select! {
            biased;
            snapshot = subscription.next() => snapshot?,
            () = shutdown.cancelled() => return None,
        };
        Some((Ok(event(id, snapshot)), (subscription, shutdown)))
    })
}

fn event(id: Uuid, snapshot: Snapshot) -> Event {
    let version = snapshot.saga_version.to_string();
    let data = StatusEvent {
        order_id: id,
        status: snapshot.status.into(),
        reason: snapshot.reason,
        updated_at: snapshot.updated_at,
    };
    let data = serde_json::to_string(&data).expect("an event has string keys only");
    Event::default().event("status").id(version).data(data)
}
