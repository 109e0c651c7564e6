//! `GET /api/orders`.

#![allow(unused_qualifications, reason = "by the expansion of utoipa's `params`")]

use axum::Json;
use axum::extract::State;
use orders::OrderStatus;
use serde::Deserialize;
use service_kit::paging::{decode_cursor, encode_cursor, limit};
use service_kit::{ApiQuery, FieldError, Page, Problem};
use sqlx::{PgPool, Row};
use utoipa::IntoParams;
use uuid::Uuid;

use crate::Api;
use crate::model::{Order, Status, with_items};

/// Orders looked at for one page of a list by status. No index may mention the status, since it changes, so such a list
/// reads the orders themselves; this bounds what one request costs.
const STRETCH: i64 = 50_000;

/// All orders, newest first.
pub const LIST_ORDERS: &str = "
SELECT id, status, reason, customer_id, currency, total_minor, created_at, updated_at
  FROM orders WHERE id < $1 ORDER BY id DESC LIMIT $2";

/// A customer's orders, newest first.
pub const LIST_ORDERS_OF_CUSTOMER: &str = "
SELECT id, status, reason, customer_id, currency, total_minor, created_at, updated_at
  FROM orders WHERE customer_id = $3 AND id < $1 ORDER BY id DESC LIMIT $2";

/// Orders with a status, newest first, among the next `$4` orders. Each row tells where those end, if they do not end
/// with the table; without a match there is one row that tells only this.
pub const LIST_ORDERS_BY_STATUS: &str = "
WITH stretch AS MATERIALIZED (
    SELECT id, status, reason, customer_id, currency, total_minor, created_at, updated_at
      FROM orders WHERE id < $1 ORDER BY id DESC LIMIT $4
), matching AS (
    SELECT * FROM stretch WHERE status = $3 ORDER BY id DESC LIMIT $2
)
SELECT (SELECT id FROM stretch ORDER BY id DESC OFFSET $4 - 1 LIMIT 1) AS stretch_end, matching.*
  FROM (SELECT 1) AS always LEFT JOIN matching ON true ORDER BY matching.id DESC";

/// A customer's orders with a status; otherwise as [`LIST_ORDERS_BY_STATUS`].
pub const LIST_ORDERS_OF_CUSTOMER_BY_STATUS: &str = "
WITH stretch AS MATERIALIZED (
    SELECT id, status, reason, customer_id, currency, total_minor, created_at, updated_at
      FROM orders WHERE customer_id = $5 AND id < $1 ORDER BY id DESC LIMIT $4
), matching AS (
    SELECT * FROM stretch WHERE status = $3 ORDER BY id DESC LIMIT $2
)
SELECT (SELECT id FROM stretch ORDER BY id DESC OFFSET $4 - 1 LIMIT 1) AS stretch_end, matching.*
  FROM (SELECT 1) AS always LEFT JOIN matching ON true ORDER BY matching.id DESC";

/// Which orders to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Only orders with this status.
    #[param(value_type = Option<Status>, nullable = false)]
    status: Option<String>,
    /// Only orders of this customer.
    #[param(nullable = false, max_length = 128)]
    customer_id: Option<String>,
    /// Most items of the page; 50 unless said.
    #[param(nullable = false, minimum = 1, maximum = 500)]
    limit: Option<u32>,
    /// `nextCursor` of the page before.
    #[param(nullable = false)]
    cursor: Option<String>,
}

/// Lists orders, newest first.
///
/// A page of a list by status may have fewer items than asked for, or none, and yet a `nextCursor`: go on until a page
/// has none.
#[utoipa::path(
    get, path = "/api/orders", tag = "orders", params(ListQuery),
    responses(
        (status = 200, description = "A page of orders", body = Page<Order>),
        (status = 400, description = "A parameter is invalid or unknown", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is down", body = Problem, content_type = "application/problem+json",
            headers(("Retry-After" = u32, description = "Seconds"))),
    )
)]
pub async fn list_orders(
    State(api): State<Api>,
    ApiQuery(query): ApiQuery<ListQuery>,
) -> Result<Json<Page<Order>>, Problem> {
    let limit = limit(query.limit)?;
    let before = decode_cursor::<Uuid>(query.cursor.as_deref())?.unwrap_or(Uuid::max());
    let status = query.status.as_deref().map(status).transpose()?;
    let customer = query.customer_id.as_deref().map(customer).transpose()?;
    let mut page = match status {
        None => list(&api.pool, before, limit, customer).await?,
        Some(status) => list_by_status(&api.pool, before, limit, status, customer).await?,
    };
    page.items = with_items(&api.pool, page.items).await?;
    Ok(Json(page))
}

async fn list(pool: &PgPool, before: Uuid, limit: u32, customer: Option<&str>) -> Result<Page<Order>, sqlx::Error> {
    let rows = i64::from(limit) + 1;
    let query = match customer {
        None => sqlx::query(LIST_ORDERS).bind(before).bind(rows),
        Some(customer) => sqlx::query(LIST_ORDERS_OF_CUSTOMER).bind(before).bind(rows).bind(customer),
    };
    let rows = query.fetch_all(pool).await?;
    let orders = rows.iter().map(Order::from_row).collect::<Result<Vec<_>, _>>()?;
    Ok(Page::from_rows(orders, limit, |order| order.order_id))
}

async fn list_by_status(
    pool: &PgPool,
    before: Uuid,
    limit: u32,
    status: OrderStatus,
    customer: Option<&str>,
) -> Result<Page<Order>, sqlx::Error> {
    let rows = i64::from(limit) + 1;
    let query = match customer {
        None => sqlx::query(LIST_ORDERS_BY_STATUS),
        Some(_) => sqlx::query(LIST_ORDERS_OF_CUSTOMER_BY_STATUS),
    };
    let query = query.bind(before).bind(rows).bind(status.as_str()).bind(STRETCH);
    let query = match customer {
        None => query,
        Some(customer) => query.bind(customer),
    };
    let rows = query.fetch_all(pool).await?;
    let stretch_end: Option<Uuid> = rows.first().map(|row| row.try_get("stretch_end")).transpose()?.flatten();
    let mut orders = Vec::with_capacity(rows.len());
    for row in &rows {
        if row.try_get::<Option<Uuid>, _>("id")?.is_some() {
            orders.push(Order::from_row(row)?);
        }
    }
    let mut page = Page::from_rows(orders, limit, |order| order.order_id);
    if page.next_cursor.is_none() {
        page.next_cursor = stretch_end.map(|end| encode_cursor(&end));
    }
    Ok(page)
}

fn status(text: &str) -> Result<OrderStatus, Problem> {
    text.parse().map_err(|error| invalid("status", &error))
}

fn customer(text: &str) -> Result<&str, Problem> {
    let length = text.chars().count();
    if (1..=128).contains(&length) && !text.chars().any(char::is_control) {
        Ok(text)
    } else {
        Err(invalid("customerId", &"must have 1 to 128 characters without control characters"))
    }
}

fn invalid(parameter: &str, detail: &impl std::fmt::Display) -> Problem {
    let errors = vec![FieldError::parameter(parameter, detail.to_string())];
    Problem::bad_request(format!("{parameter} {detail}")).errors(errors)
}
