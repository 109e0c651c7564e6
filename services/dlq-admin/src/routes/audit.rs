//! `GET /api/dlq/audit`

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use service_kit::{ApiQuery, Page, Problem, paging};
use sqlx::postgres::PgRow;
use sqlx::{FromRow, Row};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;

/// A page of the audit before $1, the newest first.
pub const LIST_AUDIT: &str = "
SELECT id, at, actor, act, letter_id, campaign_id, arguments, result, detail FROM audit
WHERE ($1::bigint IS NULL OR id < $1) AND ($2::uuid IS NULL OR letter_id = $2) ORDER BY id DESC LIMIT $3";

/// Something that an operator asked for.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AuditEntry {
    /// Grows with time.
    id: i64,
    /// When.
    at: DateTime<Utc>,
    /// Who: the header `X-Actor` of the request, or `anonymous`.
    actor: String,
    /// What: `replay`, `edit`, `discard`, `discard-many`, `campaign-preview`, `campaign-start`, `campaign-pause`, …
    act: String,
    /// The letter.
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<Uuid>,
    /// The campaign.
    #[serde(skip_serializing_if = "Option::is_none")]
    campaign_id: Option<Uuid>,
    /// What else was said.
    arguments: Value,
    /// `done`, `refused` or `failed`.
    result: String,
    /// Why it was refused or failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

impl FromRow<'_, PgRow> for AuditEntry {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(AuditEntry {
            id: row.try_get("id")?,
            at: row.try_get("at")?,
            actor: row.try_get("actor")?,
            act: row.try_get("act")?,
            message_id: row.try_get("letter_id")?,
            campaign_id: row.try_get("campaign_id")?,
            arguments: row.try_get("arguments")?,
            result: row.try_get("result")?,
            detail: row.try_get("detail")?,
        })
    }
}

/// Which part of the audit.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct AuditQuery {
    /// Only acts on this letter.
    message_id: Option<Uuid>,
    /// Items of a page: 1 to 500, 50 unless said.
    limit: Option<u32>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
}

/// Lists what operators asked for and what came of it, the newest first. Nobody can change or remove an entry.
#[utoipa::path(get, path = "/api/dlq/audit", tag = "audit", params(AuditQuery),
    responses(
        (status = 200, description = "One page", body = Page<AuditEntry>),
        (status = 400, description = "A parameter is wrong", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn list_audit(
    State(api): State<Api>,
    ApiQuery(query): ApiQuery<AuditQuery>,
) -> Result<Json<Page<AuditEntry>>, Problem> {
    let limit = paging::limit(query.limit)?;
    let before: Option<i64> = paging::decode_cursor(query.cursor.as_deref())?;
    let rows = sqlx::query_as(LIST_AUDIT)
        .bind(before)
        .bind(query.message_id)
        .bind(i64::from(limit) + 1)
        .fetch_all(&api.pool)
        .await?;
    Ok(Json(Page::from_rows(rows, limit, |entry: &AuditEntry| entry.id)))
}
