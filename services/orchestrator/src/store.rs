//! Writing: all that a batch changes, in one statement that is its own transaction.

use chrono::{DateTime, Utc};
use messaging::HandlerError;
use saga::{Saga, TimelineEntry};
use sqlx::PgPool;
use uuid::Uuid;

use crate::steps;

/// Writes a batch whole or not at all. One round trip: the statement is its own transaction, and it fails with
/// 40001 when a row was not written because another owner of the saga had been faster.
///
/// A timer is only ever moved to an earlier time, or, when its saga parks, to none: it must not be later than the
/// saga's next deadline, and being early costs nothing but a look.
pub(crate) const WRITE_BATCH: &str = "
WITH started AS (
    INSERT INTO saga (id, partition, definition_id, version, state, reason, cause, steps, started_at, updated_at)
    SELECT n.id, n.partition, n.definition_id, n.version, n.state, n.reason, n.cause, n.steps::json, n.started_at, n.updated_at
    FROM unnest($1::uuid[], $2::integer[], $3::integer[], $4::integer[], $5::text[], $6::text[], $7::text[], $8::text[],
                $9::timestamptz[], $10::timestamptz[])
        AS n (id, partition, definition_id, version, state, reason, cause, steps, started_at, updated_at)
    ON CONFLICT (id) DO NOTHING
    RETURNING id
), moved AS (
    UPDATE saga s
    SET version = n.version, state = n.state, reason = n.reason, cause = n.cause, steps = n.steps::json,
        updated_at = n.updated_at
    FROM unnest($11::uuid[], $12::integer[], $13::integer[], $14::text[], $15::text[], $16::text[], $17::text[],
                $18::timestamptz[])
        AS n (id, expected, version, state, reason, cause, steps, updated_at)
    WHERE s.id = n.id AND s.version = n.expected
    RETURNING s.id
), logged AS (
    INSERT INTO saga_timeline (saga_id, version, at, type, state, step, message_id, detail, emitted, data, trace)
    SELECT n.saga_id, n.version, n.at, n.type, n.state, n.step, n.message_id, n.detail, n.emitted::uuid[], n.data::json,
           n.trace
    FROM unnest($19::uuid[], $20::integer[], $21::timestamptz[], $22::text[], $23::text[], $24::text[], $25::uuid[],
                $26::text[], $27::text[], $28::text[], $29::text[])
        AS n (saga_id, version, at, type, state, step, message_id, detail, emitted, data, trace)
    ON CONFLICT (saga_id, version) DO NOTHING
    RETURNING saga_id
), timed AS (
    INSERT INTO saga_timer (saga_id, partition, due_at, emit, version)
    SELECT n.saga_id, n.partition, n.due_at, n.emit, n.version
    FROM unnest($30::uuid[], $31::integer[], $32::timestamptz[], $33::boolean[], $34::integer[])
        AS n (saga_id, partition, due_at, emit, version)
    ON CONFLICT (saga_id) DO UPDATE
    SET due_at = CASE WHEN excluded.due_at IS NOT NULL THEN least(saga_timer.due_at, excluded.due_at) END,
        emit = excluded.due_at IS NOT NULL AND (saga_timer.emit OR excluded.emit),
        version = excluded.version
), ended AS (
    DELETE FROM saga_timer t USING unnest($35::uuid[]) AS n (saga_id) WHERE t.saga_id = n.saga_id
), audited AS (
    INSERT INTO saga_audit (at, saga_id, verb, actor, reason, outcome, result, detail, version)
    SELECT n.at, n.saga_id, n.verb, n.actor, n.reason, n.outcome, n.result, n.detail, n.version
    FROM unnest($36::timestamptz[], $37::uuid[], $38::text[], $39::text[], $40::text[], $41::text[], $42::text[],
                $43::text[], $44::integer[])
        AS n (at, saga_id, verb, actor, reason, outcome, result, detail, version)
)
SELECT require_rows(
    (SELECT count(*) FROM started) + (SELECT count(*) FROM moved) + (SELECT count(*) FROM logged), $45)
";

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// Another writer was faster: load again and decide again.
    #[error("a saga was changed by another writer")]
    Conflict(#[source] sqlx::Error),
    /// Anything else.
    #[error("the database refused the write")]
    Database(#[source] sqlx::Error),
}

impl From<sqlx::Error> for WriteError {
    fn from(error: sqlx::Error) -> Self {
        let state = error.as_database_error().and_then(|error| error.code());
        // A deadlock, too, is another writer on the same sagas.
        if matches!(state.as_deref(), Some("40001" | "40P01")) {
            WriteError::Conflict(error)
        } else {
            WriteError::Database(error)
        }
    }
}

impl From<WriteError> for HandlerError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Conflict(error) => HandlerError::Retry(Box::new(error)),
            WriteError::Database(error) => error.into(),
        }
    }
}

/// What becomes of a saga's row in `saga_timer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimerChange {
    /// It stays: it is due no later than the next deadline.
    Keep,
    /// It is due at this time or earlier; `emit` when the transition had no Kafka message behind it.
    Due { at: DateTime<Utc>, emit: bool },
    /// The saga parked: never due, but still on the list of what has not ended.
    Park,
    /// The saga ended.
    Remove,
}

/// What becomes of the timer of a saga that a Kafka message moved from `before` to `after`.
pub(crate) fn timer_change(before: Option<&Saga>, after: &Saga) -> TimerChange {
    if after.state.is_terminal() {
        return TimerChange::Remove;
    }
    let Some(deadline) = saga::next_deadline(after) else { return TimerChange::Park };
    match before.and_then(saga::next_deadline) {
        Some(known) if known <= deadline => TimerChange::Keep,
        _ => TimerChange::Due { at: deadline, emit: false },
    }
}

/// An act of an operator, for `saga_audit`.
#[derive(Clone, Debug)]
pub(crate) struct AuditEntry {
    pub(crate) at: DateTime<Utc>,
    pub(crate) saga_id: Uuid,
    pub(crate) verb: &'static str,
    pub(crate) actor: String,
    pub(crate) reason: Option<String>,
    pub(crate) outcome: Option<&'static str>,
    /// Why it was refused; none when it was applied.
    pub(crate) refusal: Option<String>,
    /// The saga's version after the act.
    pub(crate) version: u32,
}

/// All that one write changes, as columns: one array each.
#[derive(Debug, Default)]
pub struct Changes {
    pub started: Started,
    pub moved: Moved,
    pub logged: Logged,
    pub timed: Timed,
    /// Sagas whose row in `saga_timer` goes.
    pub ended: Vec<Uuid>,
    audited: Audited,
}

/// Rows for `saga`.
#[derive(Debug, Default)]
pub struct Started {
    pub id: Vec<Uuid>,
    pub partition: Vec<i32>,
    pub definition_id: Vec<i32>,
    pub version: Vec<i32>,
    pub state: Vec<&'static str>,
    pub reason: Vec<Option<String>>,
    pub cause: Vec<Option<String>>,
    pub steps: Vec<String>,
    pub started_at: Vec<DateTime<Utc>>,
    pub updated_at: Vec<DateTime<Utc>>,
}

/// Changes of rows in `saga`.
#[derive(Debug, Default)]
pub struct Moved {
    pub id: Vec<Uuid>,
    /// The version that the row must have, or the whole write fails.
    pub expected: Vec<i32>,
    pub version: Vec<i32>,
    pub state: Vec<&'static str>,
    pub reason: Vec<Option<String>>,
    pub cause: Vec<Option<String>>,
    pub steps: Vec<String>,
    pub updated_at: Vec<DateTime<Utc>>,
}

/// Rows for `saga_timeline`.
#[derive(Debug, Default)]
pub struct Logged {
    pub saga_id: Vec<Uuid>,
    pub version: Vec<i32>,
    pub at: Vec<DateTime<Utc>>,
    pub kind: Vec<&'static str>,
    pub state: Vec<&'static str>,
    pub step: Vec<Option<String>>,
    pub message_id: Vec<Option<Uuid>>,
    pub detail: Vec<Option<String>>,
    /// An array literal of ids.
    pub emitted: Vec<String>,
    pub data: Vec<Option<String>>,
    pub trace: Vec<Option<String>>,
}

/// Rows for `saga_timer`, to be merged with what is there.
#[derive(Debug, Default)]
pub struct Timed {
    pub saga_id: Vec<Uuid>,
    pub partition: Vec<i32>,
    pub due_at: Vec<Option<DateTime<Utc>>>,
    pub emit: Vec<bool>,
    pub version: Vec<i32>,
}

#[derive(Debug, Default)]
struct Audited {
    at: Vec<DateTime<Utc>>,
    saga_id: Vec<Uuid>,
    verb: Vec<&'static str>,
    actor: Vec<String>,
    reason: Vec<Option<String>>,
    outcome: Vec<Option<&'static str>>,
    result: Vec<&'static str>,
    detail: Vec<Option<String>>,
    version: Vec<i32>,
}

impl Changes {
    /// Adds a saga that is new.
    pub(crate) fn start(&mut self, saga: &Saga, partition: i32, definition_id: i32) {
        let rows = &mut self.started;
        rows.id.push(saga.id);
        rows.partition.push(partition);
        rows.definition_id.push(definition_id);
        rows.version.push(version_column(saga.version));
        rows.state.push(saga.state.as_str());
        rows.reason.push(saga.reason.as_deref().map(storable));
        rows.cause.push(saga.cause.as_deref().map(storable));
        rows.steps.push(steps::pack(&saga.steps));
        rows.started_at.push(saga.started_at);
        rows.updated_at.push(saga.updated_at);
    }

    /// Changes a saga that was at version `expected` when it was loaded.
    pub(crate) fn advance(&mut self, saga: &Saga, expected: u32) {
        let rows = &mut self.moved;
        rows.id.push(saga.id);
        rows.expected.push(version_column(expected));
        rows.version.push(version_column(saga.version));
        rows.state.push(saga.state.as_str());
        rows.reason.push(saga.reason.as_deref().map(storable));
        rows.cause.push(saga.cause.as_deref().map(storable));
        rows.steps.push(steps::pack(&saga.steps));
        rows.updated_at.push(saga.updated_at);
    }

    /// Adds an entry to a saga's timeline; `trace` only with the first one.
    pub(crate) fn log(&mut self, saga_id: Uuid, entry: &TimelineEntry, trace: Option<String>) {
        let rows = &mut self.logged;
        let emitted: Vec<String> = entry.emitted.iter().map(Uuid::to_string).collect();
        rows.saga_id.push(saga_id);
        rows.version.push(version_column(entry.version));
        rows.at.push(entry.at);
        rows.kind.push(entry.kind.as_str());
        rows.state.push(entry.state.as_str());
        rows.step.push(entry.step.clone());
        rows.message_id.push(entry.message_id);
        rows.detail.push(entry.detail.as_deref().map(storable));
        rows.emitted.push(format!("{{{}}}", emitted.join(",")));
        rows.data.push(entry.data.as_ref().map(ToString::to_string));
        rows.trace.push(trace);
    }

    /// Changes a saga's timer; `saga` is its new state.
    pub(crate) fn timer(&mut self, saga: &Saga, partition: i32, change: TimerChange) {
        let (due_at, emit) = match change {
            TimerChange::Keep => return,
            TimerChange::Remove => return self.ended.push(saga.id),
            TimerChange::Due { at, emit } => (Some(at), emit),
            TimerChange::Park => (None, false),
        };
        let rows = &mut self.timed;
        rows.saga_id.push(saga.id);
        rows.partition.push(partition);
        rows.due_at.push(due_at);
        rows.emit.push(emit);
        rows.version.push(version_column(saga.version));
    }

    /// Adds an act of an operator.
    pub(crate) fn audit(&mut self, entry: AuditEntry) {
        let rows = &mut self.audited;
        rows.at.push(entry.at);
        rows.saga_id.push(entry.saga_id);
        rows.verb.push(entry.verb);
        rows.actor.push(storable(&entry.actor));
        rows.reason.push(entry.reason.as_deref().map(storable));
        rows.outcome.push(entry.outcome);
        rows.result.push(if entry.refusal.is_some() { "refused" } else { "applied" });
        rows.detail.push(entry.refusal);
        rows.version.push(version_column(entry.version));
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.logged.version.is_empty() && self.audited.version.is_empty()
    }

    /// Writes everything, or nothing.
    pub(crate) async fn write(self, pool: &PgPool) -> Result<(), WriteError> {
        let expected = self.started.id.len() + self.moved.id.len() + self.logged.saga_id.len();
        let Changes { started, moved, logged, timed, ended, audited } = self;
        sqlx::query(WRITE_BATCH)
            .bind(started.id)
            .bind(started.partition)
            .bind(started.definition_id)
            .bind(started.version)
            .bind(started.state)
            .bind(started.reason)
            .bind(started.cause)
            .bind(started.steps)
            .bind(started.started_at)
            .bind(started.updated_at)
            .bind(moved.id)
            .bind(moved.expected)
            .bind(moved.version)
            .bind(moved.state)
            .bind(moved.reason)
            .bind(moved.cause)
            .bind(moved.steps)
            .bind(moved.updated_at)
            .bind(logged.saga_id)
            .bind(logged.version)
            .bind(logged.at)
            .bind(logged.kind)
            .bind(logged.state)
            .bind(logged.step)
            .bind(logged.message_id)
            .bind(logged.detail)
            .bind(logged.emitted)
            .bind(logged.data)
            .bind(logged.trace)
            .bind(timed.saga_id)
            .bind(timed.partition)
            .bind(timed.due_at)
            .bind(timed.emit)
            .bind(timed.version)
            .bind(ended)
            .bind(audited.at)
            .bind(audited.saga_id)
            .bind(audited.verb)
            .bind(audited.actor)
            .bind(audited.reason)
            .bind(audited.outcome)
            .bind(audited.result)
            .bind(audited.detail)
            .bind(audited.version)
            .bind(i64::try_from(expected).unwrap_or(i64::MAX))
            .execute(pool)
            .await?;
        Ok(())
    }
}

/// Versions count a saga's transitions: far from the limit of the column, and if ever, the write conflicts.
pub(crate) fn version_column(version: u32) -> i32 {
    i32::try_from(version).unwrap_or(i32::MAX)
}

/// Texts come from participants and operators; PostgreSQL's `text` holds every character but NUL.
fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
