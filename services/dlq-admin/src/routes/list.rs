//! `GET /api/dlq/messages`

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use service_kit::{ApiQuery, Page, Problem, paging};

use super::Api;
use crate::filter::{Filter, matches_filter, state};
use crate::view::{LetterView, letter_columns};

/// A page of letters, the newest first.
pub const LIST_LETTERS: &str = concat!(
    "SELECT ",
    letter_columns!(),
    " FROM letter WHERE ",
    matches_filter!(),
    " AND ($8::text IS NULL OR state = $8) AND ($9::bigint IS NULL OR seq < $9) ORDER BY seq DESC LIMIT $10"
);

/// Which letters.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListQuery {
    /// Only of this original topic.
    topic: Option<String>,
    /// Only with this reason.
    reason: Option<String>,
    /// Only of this consumer group.
    group: Option<String>,
    /// Only in this state.
    state: Option<String>,
    /// Only with this key: its first 500 characters, with U+FFFD for NUL and for what is no UTF-8.
    key: Option<String>,
    /// Only of this group of errors.
    fingerprint: Option<String>,
    /// Only edited ones, or only those that were not.
    edited: Option<bool>,
    /// Items of a page: 1 to 500, 50 unless said.
    limit: Option<u32>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
}

/// Lists dead letters, the newest first, without their bodies.
#[utoipa::path(get, path = "/api/dlq/messages", tag = "messages", params(ListQuery),
    responses(
        (status = 200, description = "One page", body = Page<LetterView>),
        (status = 400, description = "A parameter is wrong", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn list_messages(
    State(api): State<Api>,
    ApiQuery(query): ApiQuery<ListQuery>,
) -> Result<Json<Page<LetterView>>, Problem> {
    let limit = paging::limit(query.limit)?;
    let before: Option<i64> = paging::decode_cursor(query.cursor.as_deref())?;
    let state = state(query.state.as_deref())?;
    let filter = Filter {
        topic: query.topic,
        reason: query.reason,
        group: query.group,
        key: query.key,
        fingerprint: query.fingerprint,
        edited: query.edited,
        ..Filter::default()
    };
    let rows = filter
        .bind(sqlx::query_as(LIST_LETTERS))
        .bind(state)
        .bind(before)
        .bind(i64::from(limit) + 1)
        .fetch_all(&api.pool)
        .await?;
    Ok(Json(Page::from_rows(rows, limit, |letter: &LetterView| letter.seq)))
}
