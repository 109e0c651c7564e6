use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use saga::SagaState;
use serde::{Deserialize, Serialize};
use service_kit::{ApiQuery, Page, Problem, paging};
use sqlx::Row;
use sqlx::postgres::PgRow;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Api, state};

macro_rules! list_columns {
    () => {
        "SELECT s.id, d.name, d.digest, s.version, s.state, s.reason, s.started_at, s.updated_at"
    };
}

/// From the newest id on: ids are UUIDv7. No index helps with `state`, but ends are found soon enough among
/// the newest, because most sagas have ended.
pub(crate) const LIST_SAGAS: &str = concat!(
    list_columns!(),
    "
FROM saga s JOIN definition d ON d.id = s.definition_id
WHERE s.id < coalesce($1::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
  AND ($2::text IS NULL OR d.name = $2) AND ($3::text IS NULL OR s.state = $3)
ORDER BY s.id DESC
LIMIT $4
"
);

/// What has not ended has a timer, and there are never many: however rare the state, nothing else is read.
pub(crate) const LIST_UNFINISHED_SAGAS: &str = concat!(
    list_columns!(),
    "
FROM saga_timer t JOIN saga s ON s.id = t.saga_id JOIN definition d ON d.id = s.definition_id
WHERE t.saga_id < coalesce($1::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
  AND ($2::text IS NULL OR d.name = $2) AND s.state = $3
ORDER BY t.saga_id DESC
LIMIT $4
"
);

/// Which sagas to list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListQuery {
    /// Of this definition only.
    definition: Option<String>,
    /// In this state only: `RUNNING`, `COMPENSATING`, `COMPLETED`, `COMPENSATED` or `PARKED`.
    state: Option<String>,
    /// Items of a page: 1 to 500, 50 unless said.
    limit: Option<u32>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
}

/// A saga in a list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SagaSummary {
    /// The saga; of an order, the order's id.
    saga_id: Uuid,
    /// Name of its definition.
    #[schema(example = "order")]
    definition: String,
    /// SHA-256 of the definition it is pinned to.
    digest: String,
    /// How often it moved.
    version: i32,
    /// Where it is.
    #[schema(example = "RUNNING")]
    state: String,
    /// Why it turned back, or parked.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// When it started.
    started_at: DateTime<Utc>,
    /// When it last moved.
    updated_at: DateTime<Utc>,
}

impl SagaSummary {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(SagaSummary {
            saga_id: row.try_get("id")?,
            definition: row.try_get("name")?,
            digest: row.try_get("digest")?,
            version: row.try_get("version")?,
            state: row.try_get("state")?,
            reason: row.try_get("reason")?,
            started_at: row.try_get("started_at")?,
            updated_at: row.try_get("updated_at")?,
        })
    }
}

/// Lists sagas, the newest first.
#[utoipa::path(get, path = "/api/sagas", tag = "sagas", params(ListQuery),
    responses(
        (status = 200, description = "One page", body = Page<SagaSummary>),
        (status = 400, description = "A parameter is wrong or unknown", body = Problem),
    ))]
pub(crate) async fn list_sagas(
    State(api): State<Api>,
    ApiQuery(query): ApiQuery<ListQuery>,
) -> Result<Json<Page<SagaSummary>>, Problem> {
    let limit = paging::limit(query.limit)?;
    let after: Option<Uuid> = paging::decode_cursor(query.cursor.as_deref())?;
    let state = state(query.state.as_deref())?;
    let unfinished = state.is_some_and(|state| !SagaState::is_terminal(state));
    let rows = sqlx::query(if unfinished { LIST_UNFINISHED_SAGAS } else { LIST_SAGAS })
        .bind(after)
        .bind(query.definition)
        .bind(state.map(SagaState::as_str))
        .bind(i64::from(limit) + 1)
        .fetch_all(&api.pool)
        .await?;
    let sagas = rows.iter().map(SagaSummary::from_row).collect::<Result<Vec<_>, _>>()?;
    Ok(Json(Page::from_rows(sagas, limit, |saga| saga.saga_id)))
}
