//! The orchestrator's database.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use saga::Definition;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use crate::audit::Target;

const NOW: &str = "SELECT clock_timestamp()";
const AT_REST: &str = "\
SELECT id, partition, version, state FROM saga WHERE state IN ('COMPLETED', 'COMPENSATED', 'PARKED')";
const SAGAS: &str = "\
SELECT s.id, s.version, s.state, s.reason, s.definition_id, t.due_at
  FROM saga s LEFT JOIN saga_timer t ON t.saga_id = s.id";
const TIMELINE: &str = "\
SELECT saga_id, version, at, type AS kind, state, step, message_id, detail, emitted
  FROM saga_timeline ORDER BY saga_id, version";
const DEFINITIONS: &str = "SELECT id, name, body FROM definition";
const RESOLVED: &str = "SELECT DISTINCT saga_id FROM saga_audit WHERE verb = 'resolve' AND result = 'applied'";

#[derive(sqlx::FromRow)]
pub(in crate::audit) struct SagaRow {
    pub(in crate::audit) id: Uuid,
    pub(in crate::audit) version: i32,
    pub(in crate::audit) state: String,
    pub(in crate::audit) reason: Option<String>,
    pub(in crate::audit) definition_id: i32,
    /// Of its timer row; `None` when it has none, and while it is parked.
    pub(in crate::audit) due_at: Option<DateTime<Utc>>,
}

impl SagaRow {
    /// Ended for good.
    pub(in crate::audit) fn is_terminal(&self) -> bool {
        matches!(self.state.as_str(), "COMPLETED" | "COMPENSATED")
    }
}

#[derive(sqlx::FromRow)]
pub(in crate::audit) struct Entry {
    pub(in crate::audit) saga_id: Uuid,
    pub(in crate::audit) version: i32,
    pub(in crate::audit) at: DateTime<Utc>,
    pub(in crate::audit) kind: String,
    pub(in crate::audit) state: String,
    pub(in crate::audit) step: Option<String>,
    pub(in crate::audit) message_id: Option<Uuid>,
    pub(in crate::audit) detail: Option<String>,
    pub(in crate::audit) emitted: Vec<Uuid>,
}

/// A stored definition.
pub(in crate::audit) struct StoredDefinition {
    pub(in crate::audit) name: String,
    /// Its body, or why that cannot be read.
    pub(in crate::audit) definition: Result<Definition, String>,
}

/// The orchestrator's database in one snapshot.
pub(in crate::audit) struct Sagas {
    pub(in crate::audit) sagas: HashMap<Uuid, SagaRow>,
    /// Ordered by saga and version.
    pub(in crate::audit) timeline: Vec<Entry>,
    pub(in crate::audit) definitions: HashMap<i32, StoredDefinition>,
    /// Every message that a committed transition asked for.
    pub(in crate::audit) emitted: HashSet<Uuid>,
    /// Sagas whose end an operator declared.
    pub(in crate::audit) resolved: HashSet<Uuid>,
}

impl Sagas {
    pub(in crate::audit) async fn read(target: &Target) -> anyhow::Result<Self> {
        let mut db = super::snapshot(target, "orchestrator").await?;
        let sagas: Vec<SagaRow> = sqlx::query_as(SAGAS).fetch_all(&mut db).await?;
        let timeline: Vec<Entry> = sqlx::query_as(TIMELINE).fetch_all(&mut db).await?;
        let definitions: Vec<(i32, String, String)> = sqlx::query_as(DEFINITIONS).fetch_all(&mut db).await?;
        let resolved: Vec<Uuid> = sqlx::query_scalar(RESOLVED).fetch_all(&mut db).await?;
        let stored = |(id, name, body): (i32, String, String)| {
            (id, StoredDefinition { name, definition: Definition::from_json(&body).map_err(|error| error.to_string()) })
        };
        let definitions = definitions.into_iter().map(stored).collect();
        let emitted = timeline.iter().flat_map(|entry| entry.emitted.iter().copied()).collect();
        let sagas = sagas.into_iter().map(|saga| (saga.id, saga)).collect();
        Ok(Self { sagas, timeline, definitions, emitted, resolved: resolved.into_iter().collect() })
    }

    /// The timeline of each saga, versions ascending.
    pub(in crate::audit) fn timelines(&self) -> impl Iterator<Item = &[Entry]> {
        self.timeline.chunk_by(|a, b| a.saga_id == b.saga_id)
    }

    /// The sagas that have neither ended nor rest.
    pub(in crate::audit) fn in_flight(&self) -> impl Iterator<Item = &SagaRow> {
        self.sagas.values().filter(|saga| matches!(saga.state.as_str(), "RUNNING" | "COMPENSATING"))
    }

    /// The definition that the saga runs, if it can be read.
    pub(in crate::audit) fn definition(&self, saga: &SagaRow) -> Option<&Definition> {
        self.definitions.get(&saga.definition_id)?.definition.as_ref().ok()
    }

    /// Whether the saga runs the definition `name`.
    pub(in crate::audit) fn runs(&self, saga: &SagaRow, name: &str) -> bool {
        self.definitions.get(&saga.definition_id).is_some_and(|definition| definition.name == name)
    }
}

/// A saga that was at rest when the audit began.
#[derive(sqlx::FromRow)]
pub(in crate::audit) struct AtRest {
    pub(in crate::audit) id: Uuid,
    /// Of its messages, the same on every topic.
    pub(in crate::audit) partition: i32,
    pub(in crate::audit) version: i32,
    pub(in crate::audit) state: String,
}

/// What the orchestrator's database said when the audit began.
pub(in crate::audit) struct SagasBefore {
    pub(in crate::audit) began_at: DateTime<Utc>,
    pub(in crate::audit) at_rest: Vec<AtRest>,
}

impl SagasBefore {
    pub(in crate::audit) async fn read(target: &Target) -> anyhow::Result<Self> {
        let mut db = super::snapshot(target, "orchestrator").await?;
        let began_at = sqlx::query_scalar(NOW).fetch_one(&mut db).await?;
        let at_rest = sqlx::query_as(AT_REST).fetch_all(&mut db).await?;
        Ok(Self { began_at, at_rest })
    }
}

/// The version of a saga, and when its timer is due.
pub(in crate::audit) type Progress = (i32, Option<DateTime<Utc>>);

/// Of those of `sagas` that there are now.
pub(in crate::audit) async fn progress(db: &mut PgConnection, sagas: &[Uuid]) -> sqlx::Result<HashMap<Uuid, Progress>> {
    const PROGRESS: &str = "\
SELECT s.id, s.version, t.due_at FROM saga s LEFT JOIN saga_timer t ON t.saga_id = s.id WHERE s.id = ANY($1)";
    let rows: Vec<(Uuid, i32, Option<DateTime<Utc>>)> = sqlx::query_as(PROGRESS).bind(sagas).fetch_all(db).await?;
    Ok(rows.into_iter().map(|(id, version, due)| (id, (version, due))).collect())
}
