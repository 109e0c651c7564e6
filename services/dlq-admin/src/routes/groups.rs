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
use crate::filter::state;
use crate::letter::clean;

/// Groups of errors, the largest first; after ($5, $6).
pub const LIST_GROUPS: &str = "
SELECT * FROM (
    SELECT g.fingerprint, g.topic, g.group_name AS \"group\", g.reason, g.error, g.example, g.first_seen, g.last_seen,
        coalesce(sum(c.count) FILTER (WHERE $4::text IS NULL OR c.state = $4), 0)::bigint AS count,
        coalesce(sum(c.count) FILTER (WHERE c.state = 'NEW'), 0)::bigint AS new
    FROM letter_group g JOIN letter_count c ON c.fingerprint = g.fingerprint
    WHERE ($1::text IS NULL OR g.topic = $1) AND ($2::text IS NULL OR g.reason = $2)
      AND ($3::text IS NULL OR g.group_name = $3)
    GROUP BY g.fingerprint) n
WHERE count > 0 AND ($5::bigint IS NULL OR (count, fingerprint) < ($5, $6)) ORDER BY count DESC, fingerprint DESC LIMIT $7";

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
    /// Letters, in the state asked for if one was.
    count: i64,
    /// Of these, new ones.
    new: i64,
    /// When the first of them failed.
    first_seen: DateTime<Utc>,
    /// When the last of them failed.
    last_seen: DateTime<Utc>,
    /// The newest letter of the group.
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
    let text = |text: Option<String>| text.map(|text| clean(&text, 500));
    let rows = sqlx::query_as(LIST_GROUPS)
        .bind(text(query.topic))
        .bind(text(query.reason))
        .bind(text(query.group))
        .bind(state)
        .bind(count)
        .bind(text(fingerprint))
        .bind(i64::from(limit) + 1)
        .fetch_all(&api.pool)
        .await?;
    Ok(Json(Page::from_rows(rows, limit, |group: &GroupView| (group.count, group.fingerprint.clone()))))
}
