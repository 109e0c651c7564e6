//! The orchestrator's database: its tables as migrations declare them, and its statements (`LOAD_SAGAS`, `WRITE_BATCH`,
//! `FIND_DUE`, `LOAD_DUE`, `SETTLE_TIMERS`), each a transaction of its own.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use orchestrator::decisions::{Changes, Columns, DueTimer, Settled, Snapshot, Stored};
use saga::{EntryKind, SagaState, TimelineEntry};
use uuid::Uuid;

use crate::rules::Sabotage;

#[derive(Clone, Debug, PartialEq)]
struct SagaRow {
    partition: i32,
    definition_id: i32,
    version: i32,
    state: &'static str,
    reason: Option<String>,
    cause: Option<String>,
    steps: String,
    started_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

#[derive(Clone, Debug, PartialEq)]
struct LogRow {
    at: DateTime<Utc>,
    kind: &'static str,
    state: &'static str,
    step: Option<String>,
    message_id: Option<Uuid>,
    detail: Option<String>,
    emitted: String,
    data: Option<String>,
    trace: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
struct TimerRow {
    partition: i32,
    due_at: Option<DateTime<Utc>>,
    emit: bool,
    version: i32,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Database {
    sagas: BTreeMap<Uuid, SagaRow>,
    timeline: BTreeMap<(Uuid, i32), LogRow>,
    timers: BTreeMap<Uuid, TimerRow>,
}

/// Another writer was faster.
#[derive(Debug)]
pub(crate) struct Conflict;

impl Database {
    pub(crate) fn ids(&self) -> Vec<Uuid> {
        self.sagas.keys().copied().collect()
    }

    pub(crate) fn state(&self, id: Uuid) -> Option<SagaState> {
        SagaState::from_name(self.sagas.get(&id)?.state)
    }

    pub(crate) fn stored(&self, id: Uuid) -> Option<Stored> {
        let row = self.sagas.get(&id)?;
        let log = self.timeline.range((id, 0)..=(id, i32::MAX));
        let data = log.clone().filter_map(|(_, row)| Some((row.step.clone(), row.data.clone()?)));
        let columns = Columns {
            id,
            partition: row.partition,
            definition_id: row.definition_id,
            version: row.version,
            state: row.state,
            reason: row.reason.clone(),
            cause: row.cause.clone(),
            steps: &row.steps,
            started_at: row.started_at,
            updated_at: row.updated_at,
            data: data.collect(),
            trace: log.filter_map(|(_, row)| row.trace.clone()).max(),
        };
        Some(Stored::of(columns).expect("what was written can be read"))
    }

    pub(crate) fn load(&self, ids: impl IntoIterator<Item = Uuid>, now: DateTime<Utc>) -> Snapshot {
        let sagas = ids.into_iter().filter_map(|id| Some((id, self.stored(id)?))).collect();
        Snapshot { now, sagas }
    }

    /// All of `changes`, or nothing.
    pub(crate) fn write(&mut self, changes: Changes, sabotage: Sabotage) -> Result<(), Conflict> {
        if sabotage != Sabotage::BlindWrites && self.is_outdated(&changes) {
            return Err(Conflict);
        }
        let Changes { started, moved, logged, timed, ended, .. } = changes;
        for row in 0..started.id.len() {
            let saga = SagaRow {
                partition: started.partition[row],
                definition_id: started.definition_id[row],
                version: started.version[row],
                state: started.state[row],
                reason: started.reason[row].clone(),
                cause: started.cause[row].clone(),
                steps: started.steps[row].clone(),
                started_at: started.started_at[row],
                updated_at: started.updated_at[row],
            };
            self.sagas.entry(started.id[row]).or_insert(saga);
        }
        for row in 0..moved.id.len() {
            let saga = self.sagas.get_mut(&moved.id[row]).expect("it was loaded");
            saga.version = moved.version[row];
            saga.state = moved.state[row];
            saga.reason.clone_from(&moved.reason[row]);
            saga.cause.clone_from(&moved.cause[row]);
            saga.steps.clone_from(&moved.steps[row]);
            saga.updated_at = moved.updated_at[row];
        }
        for row in 0..logged.saga_id.len() {
            let entry = LogRow {
                at: logged.at[row],
                kind: logged.kind[row],
                state: logged.state[row],
                step: logged.step[row].clone(),
                message_id: logged.message_id[row],
                detail: logged.detail[row].clone(),
                emitted: logged.emitted[row].clone(),
                data: logged.data[row].clone(),
                trace: logged.trace[row].clone(),
            };
            self.timeline.entry((logged.saga_id[row], logged.version[row])).or_insert(entry);
        }
        for row in 0..timed.saga_id.len() {
            let (id, due_at, mut emit) = (timed.saga_id[row], timed.due_at[row], timed.emit[row]);
            if sabotage == Sabotage::NoDueNowRow && emit {
                self.forget_to_emit(id);
                continue;
            }
            let (partition, version) = (timed.partition[row], timed.version[row]);
            let before = self.timers.get(&id);
            emit = due_at.is_some() && (emit || before.is_some_and(|before| before.emit));
            // `least` leaves nulls out.
            let due_at =
                due_at.map(|due_at| before.and_then(|before| before.due_at).map_or(due_at, |at| at.min(due_at)));
            self.timers.insert(id, TimerRow { partition, due_at, emit, version });
        }
        for id in ended {
            self.timers.remove(&id);
        }
        Ok(())
    }

    fn is_outdated(&self, changes: &Changes) -> bool {
        let Changes { started, moved, logged, .. } = changes;
        let version = |id: &Uuid| self.sagas.get(id).map(|row| row.version);
        started.id.iter().any(|id| self.sagas.contains_key(id))
            || moved.id.iter().zip(&moved.expected).any(|(id, expected)| version(id) != Some(*expected))
            || logged.saga_id.iter().zip(&logged.version).any(|(id, at)| self.timeline.contains_key(&(*id, *at)))
    }

    /// The timer as if the transition had come with a message.
    fn forget_to_emit(&mut self, id: Uuid) {
        let saga = self.stored(id).expect("it was written").saga;
        if saga.state.is_terminal() {
            self.timers.remove(&id);
        } else if let Some(timer) = self.timers.get_mut(&id) {
            timer.due_at = saga::next_deadline(&saga);
            timer.version = i32::try_from(saga.version).expect("a small version");
        }
    }

    /// The partitions among `owned` that have a timer due.
    pub(crate) fn find_due(&self, owned: &[i32], now: DateTime<Utc>) -> Vec<i32> {
        let due = |partition: i32| self.due(now).any(|(_, timer)| timer.partition == partition);
        owned.iter().copied().filter(|partition| due(*partition)).collect()
    }

    fn due(&self, at: DateTime<Utc>) -> impl Iterator<Item = (&Uuid, &TimerRow)> {
        self.timers.iter().filter(move |(_, timer)| timer.due_at.is_some_and(|due| due <= at))
    }

    pub(crate) fn load_due(&self, partitions: &[i32], cutoff: DateTime<Utc>) -> Vec<DueTimer> {
        let due = self.due(cutoff).filter(|(_, timer)| partitions.contains(&timer.partition));
        due.map(|(id, timer)| DueTimer {
            emit: timer.emit,
            version: u32::try_from(timer.version).expect("not negative"),
            stored: self.stored(*id).expect("a timer has its saga"),
        })
        .collect()
    }

    pub(crate) fn settle(&mut self, settled: &Settled) {
        for (row, id) in settled.moved.iter().enumerate() {
            let timer = self.timers.get_mut(id).filter(|timer| timer.version == settled.moved_version[row]);
            if let Some(timer) = timer {
                timer.due_at = settled.due_at[row];
                timer.emit = settled.emit[row];
            }
        }
        for (id, version) in settled.removed.iter().zip(&settled.removed_version) {
            if self.timers.get(id).is_some_and(|timer| timer.version == *version) {
                self.timers.remove(id);
            }
        }
    }

    /// When the next timer is due.
    pub(crate) fn next_timer(&self) -> Option<DateTime<Utc>> {
        self.timers.values().filter_map(|timer| timer.due_at).min()
    }

    /// Sagas that have a row among the unfinished.
    pub(crate) fn unfinished(&self) -> impl Iterator<Item = &Uuid> {
        self.timers.keys()
    }

    /// The timeline of a saga, as a reader of the table sees it.
    pub(crate) fn timeline(&self, id: Uuid) -> Vec<TimelineEntry> {
        let rows = self.timeline.range((id, 0)..=(id, i32::MAX));
        rows.map(|((_, version), row)| TimelineEntry {
            version: u32::try_from(*version).expect("not negative"),
            at: row.at,
            kind: EntryKind::from_name(row.kind).expect("a kind"),
            state: SagaState::from_name(row.state).expect("a state"),
            step: row.step.clone(),
            message_id: row.message_id,
            detail: row.detail.clone(),
            data: row.data.as_deref().map(|data| serde_json::from_str(data).expect("JSON")),
            emitted: ids(&row.emitted),
        })
        .collect()
    }
}

/// The ids of an array literal.
fn ids(literal: &str) -> Vec<Uuid> {
    let inner = literal.trim_matches(['{', '}']);
    inner.split(',').filter(|id| !id.is_empty()).map(|id| id.parse().expect("an id")).collect()
}
