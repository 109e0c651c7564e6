//! `GET /api/orders/{id}`.

use axum::Json;
use axum::extract::State;
use service_kit::{ApiPath, Problem};
use sqlx::PgPool;
use uuid::Uuid;

use crate::Api;
use crate::model::{Order, with_items};

/// One order.
pub const GET_ORDER: &str = "
SELECT id, status, reason, customer_id, currency, total_minor, created_at, updated_at FROM orders WHERE id = $1";

/// Shows an order.
#[utoipa::path(
    get, path = "/api/orders/{id}", tag = "orders",
    params(("id" = Uuid, Path, description = "The order")),
    responses(
        (status = 200, description = "The order", body = Order),
        (status = 400, description = "The id is none", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such order", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is down", body = Problem, content_type = "application/problem+json",
            headers(("Retry-After" = u32, description = "Seconds"))),
    )
)]
pub async fn get_order(State(api): State<Api>, ApiPath(id): ApiPath<Uuid>) -> Result<Json<Order>, Problem> {
    find(&api.pool, id).await?.map(Json).ok_or_else(|| not_found(id))
}

/// The problem of an order that is not there.
pub(crate) fn not_found(id: Uuid) -> Problem {
    Problem::not_found(format!("there is no order {id}"))
}

async fn find(pool: &PgPool, id: Uuid) -> Result<Option<Order>, sqlx::Error> {
    let Some(row) = sqlx::query(GET_ORDER).bind(id).fetch_optional(pool).await? else { return Ok(None) };
    Ok(with_items(pool, vec![Order::from_row(&row)?]).await?.pop())
}
