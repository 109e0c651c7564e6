//! Deadlines, and what was decided without a Kafka message.
//!
//! A transition by a deadline or an operator has no message that would be delivered again after a crash. So it
//! commits with its saga's timer due and `emit` set, and only after the acknowledgements another transaction
//! moves the timer to the next deadline or removes it. Until then every look at the timer sends the same
//! messages again.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use messaging::{BoxError, Due, Fired, HandlerError, Outgoing, Timers, async_trait, is_unavailable};
use saga::{Definition, Input, Saga, SagaState, TimelineEntry, Verdict};
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};
use uuid::Uuid;

use crate::definitions::{DefinitionError, Definitions};
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

/// The same of one saga, if its timer is still due.
pub(crate) const LOAD_DUE_AGAIN: &str = concat!(
    "SELECT now() AS now, t.emit, t.version AS timer_version, ",
    saga_columns!(),
    "
FROM saga_timer t
JOIN saga s ON s.id = t.saga_id
",
    saga_data!(),
    "
WHERE t.saga_id = $1 AND t.due_at <= $2"
);

/// A row that was written again since its timer fired stays as it is: it is due for another reason.
pub(crate) const SETTLE_TIMERS: &str = "
WITH moved AS (
    UPDATE saga_timer t
    SET due_at = n.due_at, emit = n.emit
    FROM unnest($1::uuid[], $2::integer[], $3::timestamptz[], $4::boolean[]) AS n (saga_id, version, due_at, emit)
    WHERE t.saga_id = n.saga_id AND t.version = n.version
)
DELETE FROM saga_timer t
USING unnest($5::uuid[], $6::integer[]) AS n (saga_id, version)
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
pub struct Settlement {
    /// The version in its row when it fired.
    version: u32,
    next: Next,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Due(DateTime<Utc>),
    /// Nothing was sent: it is looked at again, and still has to send what it had to.
    PutOff {
        until: DateTime<Utc>,
        emit: bool,
    },
    Parked,
    Removed,
}

/// Settlements as the columns of `SETTLE_TIMERS`: one array each.
#[derive(Debug, Default)]
pub struct Settled {
    pub moved: Vec<Uuid>,
    /// The version that the row must have, or it stays as it is.
    pub moved_version: Vec<i32>,
    pub due_at: Vec<Option<DateTime<Utc>>>,
    pub emit: Vec<bool>,
    pub removed: Vec<Uuid>,
    /// The same for what is removed.
    pub removed_version: Vec<i32>,
}

impl Settled {
    /// Those of `receipts`, in the order of their ids.
    #[must_use]
    pub fn of(unsettled: &HashMap<Uuid, Settlement>, receipts: &[Uuid]) -> Self {
        let mut settled = Settled::default();
        let mut receipts = receipts.to_vec();
        receipts.sort_unstable();
        for (id, settlement) in receipts.iter().filter_map(|id| Some((*id, *unsettled.get(id)?))) {
            let version = version_column(settlement.version);
            let (due, emits) = match settlement.next {
                Next::Removed => {
                    settled.removed.push(id);
                    settled.removed_version.push(version);
                    continue;
                }
                Next::Due(at) => (Some(at), false),
                Next::PutOff { until, emit } => (Some(until), emit),
                Next::Parked => (None, false),
            };
            settled.moved.push(id);
            settled.moved_version.push(version);
            settled.due_at.push(due);
            settled.emit.push(emits);
        }
        settled
    }
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
#[derive(Debug)]
pub struct DueTimer {
    /// Whether its row says so: what was decided is not known to be published.
    pub emit: bool,
    /// The version in its row.
    pub version: u32,
    /// The saga.
    pub stored: Stored,
}

/// The timers found due by one look.
struct DueTimers {
    /// The database's clock at the look.
    now: DateTime<Utc>,
    timers: Vec<DueTimer>,
    /// Timers of sagas that cannot go on.
    put_off: HashMap<Uuid, Settlement>,
    /// More are due than one look takes.
    more: bool,
}

impl DueTimers {
    /// Adds what `rows` of a look have. A saga that cannot be read is put off.
    fn take(&mut self, rows: &[PgRow]) -> Result<(), HandlerError> {
        for row in rows {
            let (id, emit) = (row.try_get("id")?, row.try_get("emit")?);
            let version = u32::try_from(row.try_get::<i32, _>("timer_version")?).unwrap_or_default();
            match Stored::from_row(id, row) {
                Ok(stored) => self.timers.push(DueTimer { emit, version, stored }),
                Err(LoadError::Database(error)) => return Err(error.into()),
                Err(error @ LoadError::Corrupt { .. }) => self.put_off(id, version, emit, &error),
            }
        }
        Ok(())
    }

    fn put_off(&mut self, saga: Uuid, version: u32, emit: bool, error: &(dyn std::error::Error + 'static)) {
        tracing::error!(saga.id = %saga, error, "a timer cannot fire; it is looked at again in a minute");
        let next = Next::PutOff { until: self.now + LOOK_AGAIN_AT_BROKEN, emit };
        self.put_off.insert(saga, Settlement { version, next });
    }
}

/// Why timers did not fire.
enum Misfire {
    /// The database is down: all of them wait.
    Unavailable(HandlerError),
    /// Another writer was faster with one of the sagas.
    Conflict(BoxError),
    /// One of the sagas cannot go on.
    Saga(BoxError),
}

impl From<WriteError> for Misfire {
    fn from(error: WriteError) -> Self {
        match error {
            error @ WriteError::Conflict(_) => Misfire::Conflict(Box::new(error)),
            WriteError::Database(error) if is_unavailable(&error) => Misfire::Unavailable(error.into()),
            error @ WriteError::Database(_) => Misfire::Saga(Box::new(error)),
        }
    }
}

impl From<DefinitionError> for Misfire {
    fn from(error: DefinitionError) -> Self {
        match error {
            DefinitionError::Database(error) if is_unavailable(&error) => Misfire::Unavailable(error.into()),
            error => Misfire::Saga(Box::new(error)),
        }
    }
}

/// What a due timer comes to.
pub struct Shot {
    /// The saga after it.
    pub saga: Saga,
    entries: Vec<TimelineEntry>,
    /// What is to be published before the timer is settled.
    pub messages: Vec<Outgoing>,
    /// What becomes of its row then.
    pub settlement: Settlement,
}

/// What `timers` come to: what is to be stored, and a shot for each of them. `definitions` has every one that their
/// sagas are pinned to; `cutoff` and `now` as for one shot.
#[must_use]
pub fn decide(
    timers: &[DueTimer],
    definitions: &HashMap<i32, Arc<Definition>>,
    cutoff: DateTime<Utc>,
    now: DateTime<Utc>,
) -> (Changes, Vec<Shot>) {
    let mut changes = Changes::default();
    let mut shots = Vec::with_capacity(timers.len());
    for timer in timers {
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
    (changes, shots)
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
        messages: messages.into_iter().map(|message| outgoing(definition.name(), saga.id, message, trace)).collect(),
        saga,
        entries,
    }
}

impl SagaTimers {
    pub(crate) fn new(pool: PgPool, definitions: Arc<Definitions>, in_flight: Arc<InFlight>) -> Self {
        SagaTimers { pool, definitions, in_flight, unsettled: Mutex::default() }
    }

    async fn load(&self, partitions: &[i32], cutoff: DateTime<Utc>) -> Result<Option<DueTimers>, HandlerError> {
        let rows = sqlx::query(LOAD_DUE).bind(partitions).bind(cutoff).bind(MOST_FIRED).fetch_all(&self.pool).await?;
        let Some(first) = rows.first() else { return Ok(None) };
        let more = i64::try_from(rows.len()).is_ok_and(|rows| rows >= MOST_FIRED);
        let now = first.try_get("now")?;
        let mut due = DueTimers { now, timers: Vec::with_capacity(rows.len()), put_off: HashMap::new(), more };
        due.take(&rows)?;
        Ok(Some(due))
    }

    /// Reads the saga of one timer again into `due`, unless it is no longer due: then somebody else has seen to it.
    async fn load_again(&self, saga: Uuid, cutoff: DateTime<Utc>, due: &mut DueTimers) -> Result<(), HandlerError> {
        let rows = sqlx::query(LOAD_DUE_AGAIN).bind(saga).bind(cutoff).fetch_all(&self.pool).await?;
        if let Some(row) = rows.first() {
            due.now = row.try_get("now")?;
        }
        due.take(&rows)
    }

    /// Decides what `timers` come to and writes it in one transaction.
    async fn shoot_all(
        &self,
        timers: &[DueTimer],
        cutoff: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<Vec<Shot>, Misfire> {
        let pinned: BTreeSet<i32> = timers.iter().map(|timer| timer.stored.definition_id).collect();
        let definitions = self.definitions.get(pinned).await?;
        let (changes, shots) = decide(timers, &definitions, cutoff, now);
        if !changes.is_empty() {
            changes.write(&self.pool).await?;
        }
        for (timer, shot) in timers.iter().zip(&shots) {
            let result = if shot.messages.is_empty() { "moved" } else { "fired" };
            metrics::TIMERS.with_label_values(&[result]).inc();
            count_transitions(&definitions[&timer.stored.definition_id], &shot.saga, &shot.entries);
            let flying = |state: SagaState| i64::from(is_in_flight(state));
            self.in_flight.add(flying(shot.saga.state) - flying(timer.stored.saga.state));
        }
        Ok(shots)
    }

    /// One by one, so that a saga which cannot go on holds up none of the others: it is looked at again later. One that
    /// somebody else moved meanwhile can go on, and is decided again at once.
    async fn shoot_singly(&self, due: &mut DueTimers, cutoff: DateTime<Utc>) -> Result<Vec<Shot>, HandlerError> {
        let mut shots = Vec::with_capacity(due.timers.len());
        for timer in std::mem::take(&mut due.timers) {
            let id = timer.stored.saga.id;
            due.timers.push(timer);
            let mut tries = 0;
            while let Some(timer) = due.timers.pop() {
                match self.shoot_all(std::slice::from_ref(&timer), cutoff, due.now).await {
                    Ok(shot) => shots.extend(shot),
                    Err(Misfire::Unavailable(error)) => return Err(error),
                    Err(Misfire::Conflict(_)) if tries < CONFLICT_RETRIES => {
                        metrics::CONFLICTS.inc();
                        tries += 1;
                        self.load_again(id, cutoff, due).await?;
                    }
                    // A row in conflict that nobody moves is wrong itself. One that was moved is not put off by this:
                    // settling leaves alone what was written meanwhile.
                    Err(Misfire::Conflict(error) | Misfire::Saga(error)) => {
                        due.put_off(id, timer.version, timer.emit, &*error);
                    }
                }
            }
        }
        Ok(shots)
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
        let (due, shots) = loop {
            let Some(mut due) = self.load(partitions, cutoff).await? else { return Ok(Fired::default()) };
            match self.shoot_all(&due.timers, cutoff, due.now).await {
                Ok(shots) => break (due, shots),
                Err(Misfire::Unavailable(error)) => return Err(error),
                // Somebody else moved one of them meanwhile: load again.
                Err(Misfire::Conflict(_)) if tries < CONFLICT_RETRIES => {
                    metrics::CONFLICTS.inc();
                    tries += 1;
                }
                Err(Misfire::Conflict(_) | Misfire::Saga(_)) => {
                    let shots = self.shoot_singly(&mut due, cutoff).await?;
                    break (due, shots);
                }
            }
        };
        let mut unsettled = due.put_off;
        let mut messages = Vec::new();
        for shot in shots {
            unsettled.insert(shot.saga.id, shot.settlement);
            messages.extend(shot.messages);
        }
        let receipts = unsettled.keys().copied().collect();
        *self.unsettled.lock().unwrap_or_else(PoisonError::into_inner) = unsettled;
        Ok(Fired { messages, receipts, more: due.more })
    }

    async fn settle(&self, receipts: &[Uuid]) -> Result<(), HandlerError> {
        if receipts.is_empty() {
            return Ok(());
        }
        let settled = Settled::of(&self.unsettled.lock().unwrap_or_else(PoisonError::into_inner), receipts);
        sqlx::query(SETTLE_TIMERS)
            .bind(settled.moved)
            .bind(settled.moved_version)
            .bind(settled.due_at)
            .bind(settled.emit)
            .bind(settled.removed)
            .bind(settled.removed_version)
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
