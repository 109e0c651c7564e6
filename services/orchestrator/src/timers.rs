//! Deadlines, and what was decided without a Kafka message.
//!
//! A transition by a deadline or an operator has no message that would be delivered again after a crash. So it
//! commits with its saga's timer due and `emit` set, and only after the acknowledgements another transaction
//! moves the timer to the next deadline or removes it. Until then every look at the timer sends the same
//! messages again.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use messaging::{Due, Fired, HandlerError, Outgoing, Timers, async_trait};
use saga::{Definition, Input, Saga, SagaState, TimelineEntry, Verdict};
use sqlx::{PgPool, Row};
use uuid::Uuid;

use crate::definitions::Definitions;
use crate::fold::{count_transitions, is_in_flight};
use crate::gate::InFlight;
use crate::handler::CONFLICT_RETRIES;
use crate::load::{LoadError, Stored, saga_columns, saga_data};
use crate::metrics;
use crate::outgoing::outgoing;
use crate::store::{Changes, TimerChange, WriteError, version_column};

/// One probe of the index for each partition.
pub(crate) const FIND_DUE: &str = "
SELECT now() AS now, ARRAY(
    SELECT owned.partition
    FROM unnest($1::integer[]) AS owned (partition)
    WHERE EXISTS (SELECT FROM saga_timer t WHERE t.partition = owned.partition AND t.due_at <= now())
) AS partitions
";

pub(crate) const LOAD_DUE: &str = concat!(
    "SELECT now() AS now, t.emit, t.version AS timer_version, ",
    saga_columns!(),
    "
FROM (
    SELECT saga_id, emit, version FROM saga_timer
    WHERE partition = ANY($1) AND due_at <= $2
    ORDER BY due_at
    LIMIT $3
) t
JOIN saga s ON s.id = t.saga_id
",
    saga_data!(),
    "
ORDER BY s.id"
);

/// A row that was written again since its timer fired stays as it is: it is due for another reason.
pub(crate) const SETTLE_TIMERS: &str = "
WITH moved AS (
    UPDATE saga_timer t
    SET due_at = n.due_at, emit = false
    FROM unnest($1::uuid[], $2::integer[], $3::timestamptz[]) AS n (saga_id, version, due_at)
    WHERE t.saga_id = n.saga_id AND t.version = n.version
)
DELETE FROM saga_timer t
USING unnest($4::uuid[], $5::integer[]) AS n (saga_id, version)
WHERE t.saga_id = n.saga_id AND t.version = n.version
";

/// The most timers fired in one transaction.
const MOST_FIRED: i64 = 500;

/// A saga that cannot be read is looked at again after this time; meanwhile the others fire.
const LOOK_AGAIN_AT_BROKEN: TimeDelta = TimeDelta::seconds(60);

/// Fires the timers of the partitions owned.
pub(crate) struct SagaTimers {
    pool: PgPool,
    definitions: Arc<Definitions>,
    in_flight: Arc<InFlight>,
    /// What becomes of the timers fired last. Lost in a crash, and then they fire again.
    unsettled: Mutex<HashMap<Uuid, Settlement>>,
}

/// What becomes of a fired timer once its messages are acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Settlement {
    /// The version in its row when it fired.
    version: u32,
    next: Next,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Due(DateTime<Utc>),
    Parked,
    Removed,
}

impl Next {
    fn of(saga: &Saga) -> Self {
        match saga::next_deadline(saga) {
            _ if saga.state.is_terminal() => Next::Removed,
            Some(deadline) => Next::Due(deadline),
            None => Next::Parked,
        }
    }
}

/// A timer found due, with its saga.
struct DueTimer {
    emit: bool,
    version: u32,
    stored: Stored,
}

/// What a due timer comes to.
struct Shot {
    saga: Saga,
    entries: Vec<TimelineEntry>,
    messages: Vec<Outgoing>,
    settlement: Settlement,
}

/// Lets every deadline of `timer`'s saga pass that was over at `cutoff`; later ones may have an answer that is
/// not read yet. New deadlines count from `now`.
fn shoot(definition: &Definition, timer: &DueTimer, cutoff: DateTime<Utc>, now: DateTime<Utc>) -> Shot {
    let mut saga = timer.stored.saga.clone();
    let (mut entries, mut messages) = (Vec::new(), Vec::new());
    while saga::next_deadline(&saga).is_some_and(|deadline| deadline <= cutoff) {
        let Verdict::Moved(transition) = saga::apply(definition, &saga, &Input::Tick, now) else { break };
        saga = transition.saga;
        entries.push(transition.entry);
        messages.extend(transition.messages);
    }
    if timer.emit {
        messages = saga::outstanding(definition, &saga);
    }
    let trace = timer.stored.trace.as_deref();
    Shot {
        settlement: Settlement {
            version: if entries.is_empty() { timer.version } else { saga.version },
            next: Next::of(&saga),
        },
        messages: messages.into_iter().map(|message| outgoing(saga.id, message, trace)).collect(),
        saga,
        entries,
    }
}

impl SagaTimers {
    pub(crate) fn new(pool: PgPool, definitions: Arc<Definitions>, in_flight: Arc<InFlight>) -> Self {
        SagaTimers { pool, definitions, in_flight, unsettled: Mutex::default() }
    }

    async fn attempt(
        &self,
        partitions: &[i32],
        cutoff: DateTime<Utc>,
    ) -> Result<Result<Fired, WriteError>, HandlerError> {
        let rows = sqlx::query(LOAD_DUE).bind(partitions).bind(cutoff).bind(MOST_FIRED).fetch_all(&self.pool).await?;
        let Some(first) = rows.first() else { return Ok(Ok(Fired::default())) };
        let now: DateTime<Utc> = first.try_get("now")?;
        let mut unsettled = HashMap::with_capacity(rows.len());
        let mut timers = Vec::with_capacity(rows.len());
        for row in &rows {
            let id: Uuid = row.try_get("id")?;
            let version = u32::try_from(row.try_get::<i32, _>("timer_version")?).unwrap_or_default();
            match Stored::from_row(id, row) {
                Ok(stored) => timers.push(DueTimer { emit: row.try_get("emit")?, version, stored }),
                Err(LoadError::Database(error)) => return Err(error.into()),
                Err(error @ LoadError::Corrupt { .. }) => {
                    tracing::error!(saga.id = %id, %error, "a timer cannot fire");
                    unsettled.insert(id, Settlement { version, next: Next::Due(now + LOOK_AGAIN_AT_BROKEN) });
                }
            }
        }
        let pinned: BTreeSet<i32> = timers.iter().map(|timer| timer.stored.definition_id).collect();
        let definitions = self.definitions.get(pinned).await?;

        let mut changes = Changes::default();
        let mut shots = Vec::with_capacity(timers.len());
        for timer in &timers {
            let shot = shoot(&definitions[&timer.stored.definition_id], timer, cutoff, now);
            if !shot.entries.is_empty() {
                changes.advance(&shot.saga, timer.stored.saga.version);
                for entry in &shot.entries {
                    changes.log(shot.saga.id, entry, None);
                }
                changes.timer(&shot.saga, timer.stored.partition, TimerChange::Due { at: cutoff, emit: true });
            }
            shots.push(shot);
        }
        if !changes.is_empty()
            && let Err(error) = changes.write(&self.pool).await
        {
            return Ok(Err(error));
        }

        let mut messages = Vec::new();
        for (timer, shot) in timers.iter().zip(shots) {
            let result = if shot.messages.is_empty() { "moved" } else { "fired" };
            metrics::TIMERS.with_label_values(&[result]).inc();
            count_transitions(&definitions[&timer.stored.definition_id], &shot.saga, &shot.entries);
            let flying = |state: SagaState| i64::from(is_in_flight(state));
            self.in_flight.add(flying(shot.saga.state) - flying(timer.stored.saga.state));
            unsettled.insert(shot.saga.id, shot.settlement);
            messages.extend(shot.messages);
        }
        let receipts = unsettled.keys().copied().collect();
        *self.unsettled.lock().unwrap_or_else(PoisonError::into_inner) = unsettled;
        Ok(Ok(Fired { messages, receipts, more: i64::try_from(rows.len()).is_ok_and(|rows| rows >= MOST_FIRED) }))
    }
}

#[async_trait]
impl Timers for SagaTimers {
    async fn due(&self, partitions: &[i32]) -> Result<Due, HandlerError> {
        let row = sqlx::query(FIND_DUE).bind(partitions).fetch_one(&self.pool).await?;
        Ok(Due { now: row.try_get("now")?, partitions: row.try_get("partitions")? })
    }

    async fn fire(&self, partitions: &[i32], cutoff: DateTime<Utc>) -> Result<Fired, HandlerError> {
        let mut tries = 0;
        loop {
            match self.attempt(partitions, cutoff).await? {
                Ok(fired) => return Ok(fired),
                Err(WriteError::Conflict(_)) if tries < CONFLICT_RETRIES => {
                    metrics::CONFLICTS.inc();
                    tries += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn settle(&self, receipts: &[Uuid]) -> Result<(), HandlerError> {
        if receipts.is_empty() {
            return Ok(());
        }
        let (mut moved, mut moved_version, mut due_at) = (Vec::new(), Vec::new(), Vec::new());
        let (mut removed, mut removed_version) = (Vec::new(), Vec::new());
        {
            let unsettled = self.unsettled.lock().unwrap_or_else(PoisonError::into_inner);
            let mut receipts = receipts.to_vec();
            receipts.sort_unstable();
            for (id, settlement) in receipts.iter().filter_map(|id| Some((*id, *unsettled.get(id)?))) {
                let version = version_column(settlement.version);
                let due = match settlement.next {
                    Next::Removed => {
                        removed.push(id);
                        removed_version.push(version);
                        continue;
                    }
                    Next::Due(at) => Some(at),
                    Next::Parked => None,
                };
                moved.push(id);
                moved_version.push(version);
                due_at.push(due);
            }
        }
        sqlx::query(SETTLE_TIMERS)
            .bind(moved)
            .bind(moved_version)
            .bind(due_at)
            .bind(removed)
            .bind(removed_version)
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
