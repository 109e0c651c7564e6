//! `GET /api/dlq/groups`

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use service_kit::{ApiQuery, Page, Problem, paging};
use sqlx::FromRow;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;
use crate::filter::{Filter, matches_filter, state};

/// Groups of errors, the largest first; after ($9, $10).
pub const LIST_GROUPS: &str = concat!(
    "
SELECT * FROM (
    SELECT fingerprint, min(topic) AS topic, min(group_name) AS \"group\", min(reason) AS reason, count(*) AS count,
        count(*) FILTER (WHERE state = 'NEW') AS new, min(coalesce(first_failed_at, dlq_at, indexed_at)) AS first_seen,
        max(coalesce(first_failed_at, dlq_at, indexed_at)) AS last_seen, (array_agg(id ORDER BY seq DESC))[1] AS example,
        (array_agg(left(error, 500) ORDER BY seq DESC))[1] AS error
    FROM letter WHERE ",
    matches_filter!(),
    " AND ($8::text IS NULL OR state = $8) GROUP BY fingerprint) g
WHERE $9::bigint IS NULL OR (count, fingerprint) < ($9, $10) ORDER BY count DESC, fingerprint DESC LIMIT $11"
);

/// Letters with the same trouble: topic, consumer group, reason, and error apart from its numbers and ids.
#[derive(Debug, Serialize, FromRow, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GroupView {
    /// Of the group; a filter of letters.
    fingerprint: String,
    /// Original topic.
    topic: String,
    /// Consumer group.
    group: String,
    /// Reason.
    reason: String,
    /// The error of the example.
    error: String,
    /// Letters.
    count: i64,
    /// Of these, new ones.
    new: i64,
    /// When the first of them failed.
    first_seen: DateTime<Utc>,
    /// When the last of them failed.
    last_seen: DateTime<Utc>,
    /// The newest of them.
    example: Uuid,
}

/// Of which letters.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct GroupsQuery {
    /// Only of this original topic.
    topic: Option<String>,
    /// Only with this reason.
    reason: Option<String>,
    /// Only of this consumer group.
    group: Option<String>,
    /// Only letters in this state.
    state: Option<String>,
    /// Items of a page: 1 to 500, 50 unless said.
    limit: Option<u32>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
}

/// Groups letters by their trouble, the most frequent first.
#[utoipa::path(get, path = "/api/dlq/groups", tag = "messages", params(GroupsQuery),
    responses(
        (status = 200, description = "One page", body = Page<GroupView>),
        (status = 400, description = "A parameter is wrong", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn list_groups(
    State(api): State<Api>,
    ApiQuery(query): ApiQuery<GroupsQuery>,
) -> Result<Json<Page<GroupView>>, Problem> {
    let limit = paging::limit(query.limit)?;
    let after: Option<(i64, String)> = paging::decode_cursor(query.cursor.as_deref())?;
    let (count, fingerprint) = after.unzip();
    let state = state(query.state.as_deref())?;
    let filter = Filter { topic: query.topic, reason: query.reason, group: query.group, ..Filter::default() };
    let rows = filter
        .bind(sqlx::query_as(LIST_GROUPS))
        .bind(state)
        .bind(count)
        .bind(fingerprint.map(|fingerprint| crate::letter::clean(&fingerprint, 64)))
        .bind(i64::from(limit) + 1)
        .fetch_all(&api.pool)
        .await?;
    Ok(Json(Page::from_rows(rows, limit, |group: &GroupView| (group.count, group.fingerprint.clone()))))
}
