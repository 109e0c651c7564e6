//! `GET /api/notifications`

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use service_kit::{ApiQuery, Page, Problem, paging};
use sqlx::PgPool;
use utoipa::ToSchema;
use uuid::Uuid;

/// A page of notifications before ($2, $3), of the order $1 or of all. Order ids grow with time, so the newest orders
/// come first, by the primary key alone.
pub const LIST: &str = "
    SELECT order_id, kind, customer_id, message, sent_at FROM notifications
    WHERE ($1::uuid IS NULL OR order_id = $1) AND ($2::uuid IS NULL OR (order_id, kind) < ($2, $3))
    ORDER BY order_id DESC, kind DESC LIMIT $4";

/// What a customer was told.
#[derive(Debug, Serialize, ToSchema, sqlx::FromRow)]
#[serde(rename_all = "camelCase")]
pub struct NotificationView {
    /// The order.
    pub order_id: Uuid,
    /// `COMPLETED` or `CANCELLED`.
    pub kind: String,
    /// Who was told.
    pub customer_id: String,
    /// What.
    pub message: String,
    /// When.
    pub sent_at: DateTime<Utc>,
}

/// Which notifications.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Only those of this order.
    order_id: Option<Uuid>,
    /// Notifications a page, 1 to 500; 50 when absent.
    limit: Option<u32>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
}

/// What customers were told, the newest orders first.
#[utoipa::path(
    get, path = "/api/notifications", tag = "notifications",
    params(ListQuery),
    responses(
        (status = 200, body = Page<NotificationView>),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "A parameter is wrong or unknown"),
        (status = 503, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn list_notifications(
    State(pool): State<PgPool>,
    ApiQuery(query): ApiQuery<ListQuery>,
) -> Result<Json<Page<NotificationView>>, Problem> {
    let limit = paging::limit(query.limit)?;
    let before: Option<(Uuid, String)> = paging::decode_cursor(query.cursor.as_deref())?;
    let (order_id, kind) = before.unzip();
    let rows = sqlx::query_as(LIST)
        .bind(query.order_id)
        .bind(order_id)
        .bind(kind)
        .bind(i64::from(limit) + 1)
        .fetch_all(&pool)
        .await?;
    Ok(Json(Page::from_rows(rows, limit, |sent: &NotificationView| (sent.order_id, sent.kind.clone()))))
}
