use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use saga::{StepView, step_view};
use serde::Serialize;
use serde_json::Value;
use service_kit::{ApiPath, Problem};
use sqlx::Row;
use sqlx::postgres::PgRow;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;
use crate::load::load;
use crate::store::version_column;

/// Up to the version of the saga that was read before, so that both agree.
pub(crate) const SHOW_TIMELINE: &str = "
SELECT version, at, type, state, step, message_id, detail, emitted
FROM saga_timeline
WHERE saga_id = $1 AND version <= $2
ORDER BY version
";

/// A saga with its steps and its history.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SagaDetail {
    /// The saga; of an order, the order's id.
    saga_id: Uuid,
    /// Name of its definition.
    #[schema(example = "order")]
    definition: String,
    /// The version the author gave that definition.
    definition_version: u32,
    /// How often it moved: the version of the last entry of its timeline.
    version: u32,
    /// SHA-256 of the definition it is pinned to.
    digest: String,
    /// The key of all its messages.
    subject: String,
    /// Where it is.
    #[schema(example = "RUNNING")]
    state: &'static str,
    /// Why it turned back, or parked.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// When it started.
    started_at: DateTime<Utc>,
    /// When it last moved.
    updated_at: DateTime<Utc>,
    /// In the order of the definition.
    steps: Vec<StepDetail>,
    /// In the order in which it happened.
    timeline: Vec<TimelineItem>,
}

/// A step of a saga.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StepDetail {
    /// Its name in the definition.
    name: String,
    /// `WAITING`, `REQUESTED`, `SUCCEEDED`, `FAILED`, `UNKNOWN`, `UNDOING`, `UNDONE` or `SKIPPED`.
    #[schema(example = "SUCCEEDED")]
    state: &'static str,
    /// How often its command was sent, since the start or an operator's last retry.
    attempts: u32,
    /// The same for its undo.
    #[serde(skip_serializing_if = "Option::is_none")]
    undo_attempts: Option<u32>,
    /// When the attempt in flight is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline: Option<DateTime<Utc>>,
    /// The value of the reply that it succeeded with.
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<Value>,
    /// Why it failed or was given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl From<StepView> for StepDetail {
    fn from(step: StepView) -> Self {
        StepDetail {
            name: step.name,
            state: step.state.as_str(),
            attempts: step.attempts,
            undo_attempts: step.undo_attempts,
            deadline: step.deadline,
            output: step.output,
            reason: step.reason,
        }
    }
}

/// A transition.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TimelineItem {
    /// From 1 on, without a gap.
    version: i32,
    /// When it was stored, by the database's clock.
    at: DateTime<Utc>,
    /// What happened.
    #[serde(rename = "type")]
    #[schema(example = "STEP_SUCCEEDED")]
    kind: String,
    /// The saga's state after it.
    state: String,
    /// The step it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<String>,
    /// The message that caused it; none for a deadline or an operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<Uuid>,
    /// A reason, or who did it.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// The messages it caused.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    emitted: Vec<Uuid>,
}

impl TimelineItem {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(TimelineItem {
            version: row.try_get("version")?,
            at: row.try_get("at")?,
            kind: row.try_get("type")?,
            state: row.try_get("state")?,
            step: row.try_get("step")?,
            message_id: row.try_get("message_id")?,
            detail: row.try_get("detail")?,
            emitted: row.try_get("emitted")?,
        })
    }
}

/// Shows a saga: where each step is, and how it came there.
#[utoipa::path(get, path = "/api/sagas/{id}", tag = "sagas", params(("id" = Uuid, Path, description = "The saga")),
    responses(
        (status = 200, description = "The saga", body = SagaDetail),
        (status = 404, description = "There is no such saga", body = Problem),
    ))]
pub(crate) async fn show_saga(State(api): State<Api>, ApiPath(id): ApiPath<Uuid>) -> Result<Json<SagaDetail>, Problem> {
    let mut snapshot = load(&api.pool, &[id]).await?;
    let stored = snapshot.sagas.remove(&id).ok_or_else(|| Problem::not_found(format!("there is no saga {id}")))?;
    let definition = api.definitions.one(stored.definition_id).await?;
    let saga = stored.saga;
    let rows = sqlx::query(SHOW_TIMELINE).bind(id).bind(version_column(saga.version)).fetch_all(&api.pool).await?;
    Ok(Json(SagaDetail {
        saga_id: id,
        definition: definition.name().to_owned(),
        definition_version: definition.version(),
        version: saga.version,
        digest: definition.digest().to_owned(),
        subject: id.to_string(),
        state: saga.state.as_str(),
        reason: saga.reason.clone(),
        started_at: saga.started_at,
        updated_at: saga.updated_at,
        steps: step_view(&definition, &saga).into_iter().map(StepDetail::from).collect(),
        timeline: rows.iter().map(TimelineItem::from_row).collect::<Result<_, _>>()?,
    }))
}
