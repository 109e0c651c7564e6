//! `PUT /api/stock/{sku}`: an operator counted.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use orders::Sku;
use serde::Deserialize;
use service_kit::{ApiJson, ApiPath, FieldError, Problem};
use sqlx::PgPool;
use utoipa::ToSchema;

use super::stock::{StockView, find};

/// More pieces than any shelf holds; keeps every sum far from the end of 64 bits.
const MOST: i64 = 1_000_000_000_000;

/// A unit that was unknown: begins with nothing, and its first count is an adjustment like any other.
pub const CREATE: &str = "
    WITH created AS (
        INSERT INTO stock (sku, adjusted, available) VALUES ($1, $2, $2)
        ON CONFLICT (sku) DO NOTHING
        RETURNING sku, available, reserved, shipped
    ), recorded AS (
        INSERT INTO adjustments (sku, delta) SELECT sku, $2 FROM created
    )
    SELECT sku, available, reserved, shipped FROM created";

/// Sets the pieces available to $3 where they are still $2, and records the difference.
pub const ADJUST: &str = "
    WITH adjusted AS (
        UPDATE stock SET available = $3, adjusted = adjusted + ($3 - $2)
        WHERE sku = $1 AND available = $2
        RETURNING sku, available, reserved, shipped
    ), recorded AS (
        INSERT INTO adjustments (sku, delta) SELECT sku, $3::bigint - $2 FROM adjusted
    )
    SELECT sku, available, reserved, shipped FROM adjusted";

/// What was counted.
#[derive(Debug, Deserialize, ToSchema)]
pub struct PutStock {
    /// Pieces that can be ordered from now on.
    #[schema(minimum = 0, maximum = 1_000_000_000_000_i64)]
    available: i64,
}

/// Sets the pieces available; pieces reserved and shipped stay. Creates the unit if it is unknown.
#[utoipa::path(
    put, path = "/api/stock/{sku}", tag = "stock",
    params(("sku" = String, Path, description = "The unit, 1 to 64 characters")),
    request_body = PutStock,
    responses(
        (status = 200, body = StockView, description = "Set"),
        (status = 201, body = StockView, description = "Created"),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "Changed meanwhile"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn put_stock(
    State(pool): State<PgPool>,
    ApiPath(sku): ApiPath<String>,
    ApiJson(asked): ApiJson<PutStock>,
) -> Result<(StatusCode, Json<StockView>), Problem> {
    let mut errors = Vec::new();
    let sku = Sku::try_from(sku).map_err(|error| errors.push(FieldError::parameter("sku", error.to_string()))).ok();
    if !(0..=MOST).contains(&asked.available) {
        errors.push(FieldError::new("/available", format!("must be from 0 to {MOST}")));
    }
    let Some(sku) = sku.filter(|_| errors.is_empty()) else {
        return Err(Problem::invalid(errors));
    };
    let set = |unit: Option<StockView>, status| match unit {
        Some(unit) => Ok((status, Json(unit))),
        None => Err(Problem::conflict("stock-changed", format!("{sku} changed meanwhile; read it and try again"))),
    };
    match find(&pool, sku.as_str()).await? {
        None => {
            let created = sqlx::query_as(CREATE).bind(sku.as_str()).bind(asked.available).fetch_optional(&pool).await?;
            set(created, StatusCode::CREATED)
        }
        Some(unit) if unit.available == asked.available => set(Some(unit), StatusCode::OK),
        Some(unit) => {
            let adjusted = sqlx::query_as(ADJUST)
                .bind(sku.as_str())
                .bind(unit.available)
                .bind(asked.available)
                .fetch_optional(&pool)
                .await?;
            set(adjusted, StatusCode::OK)
        }
    }
}
