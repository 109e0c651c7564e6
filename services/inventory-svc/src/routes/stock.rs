//! `GET /api/stock` and `GET /api/stock/{sku}`

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use service_kit::{ApiPath, ApiQuery, Page, Problem, paging};
use sqlx::PgPool;
use utoipa::ToSchema;

/// A page of units after $1, sorted.
pub const LIST: &str = "
    SELECT sku, available, reserved, shipped FROM stock
    WHERE $1::text IS NULL OR sku > $1 ORDER BY sku LIMIT $2";

/// One unit.
pub const GET: &str = "SELECT sku, available, reserved, shipped FROM stock WHERE sku = $1";

/// Where the pieces of a unit are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema, sqlx::FromRow)]
pub struct StockView {
    /// The unit.
    pub sku: String,
    /// Pieces that can be ordered.
    pub available: i64,
    /// Pieces set aside for orders under way.
    pub reserved: i64,
    /// Pieces of completed orders.
    pub shipped: i64,
}

/// Which page.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Units a page, 1 to 500; 50 when absent.
    limit: Option<u32>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
}

/// All units, by SKU.
#[utoipa::path(
    get, path = "/api/stock", tag = "stock",
    params(ListQuery),
    responses(
        (status = 200, body = Page<StockView>),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "A parameter is wrong or unknown"),
        (status = 503, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn list_stock(
    State(pool): State<PgPool>,
    ApiQuery(query): ApiQuery<ListQuery>,
) -> Result<Json<Page<StockView>>, Problem> {
    let limit = paging::limit(query.limit)?;
    let after: Option<String> = paging::decode_cursor(query.cursor.as_deref())?;
    let rows = sqlx::query_as(LIST).bind(after).bind(i64::from(limit) + 1).fetch_all(&pool).await?;
    Ok(Json(Page::from_rows(rows, limit, |unit: &StockView| unit.sku.clone())))
}

/// One unit.
#[utoipa::path(
    get, path = "/api/stock/{sku}", tag = "stock",
    params(("sku" = String, Path, description = "The unit")),
    responses(
        (status = 200, body = StockView),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "No name of a unit"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such unit"),
        (status = 503, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn get_stock(State(pool): State<PgPool>, ApiPath(sku): ApiPath<String>) -> Result<Json<StockView>, Problem> {
    match find(&pool, &sku).await? {
        Some(unit) => Ok(Json(unit)),
        None => Err(Problem::not_found(format!("there is no unit {sku}"))),
    }
}

/// The unit `sku`, if there is one.
pub async fn find(pool: &PgPool, sku: &str) -> Result<Option<StockView>, sqlx::Error> {
    sqlx::query_as(GET).bind(sku).fetch_optional(pool).await
}
