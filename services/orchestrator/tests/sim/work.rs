//! A participant's database: the tables and statements of payment-svc, for any step. Each method is a transaction.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use messaging::Delivery;
use uuid::Uuid;

use crate::random::Random;
use crate::rules::Sabotage;

/// After this time an answer comes that does not come at once.
const SLOW: TimeDelta = TimeDelta::seconds(90);

/// Where the work for a saga is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The answer comes later.
    Pending,
    Done,
    Declined,
    Undone,
    /// Undone before it was done.
    Refused,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) state: State,
    pub(crate) answered_at: Option<DateTime<Utc>>,
    pub(crate) undone_at: Option<DateTime<Utc>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Posted {
    Effect,
    Undo,
}

/// How often a participant says no or answers late, in percent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Habits {
    pub(crate) declines: usize,
    pub(crate) ponders: usize,
    /// Commands that bring its transaction down, whenever they come.
    pub(crate) chokes: usize,
}

/// A participant's database.
#[derive(Clone, Debug, Default)]
pub(crate) struct Work {
    habits: Habits,
    salt: u64,
    pub(crate) rows: BTreeMap<Uuid, Row>,
    /// Answers to come, by saga.
    pub(crate) slow: BTreeMap<Uuid, (DateTime<Utc>, Delivery<Asked>)>,
    ledger: Vec<(Uuid, Posted)>,
    /// The cause of the refusal is gone: asked again, it says yes.
    mended: BTreeSet<Uuid>,
}

/// What a command asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Do,
    Undo,
}

impl Work {
    pub(crate) fn new(habits: Habits, salt: u64) -> Self {
        Work { habits, salt, ..Work::default() }
    }

    /// Effects and undos of a saga.
    pub(crate) fn counts(&self, saga: Uuid) -> (usize, usize) {
        let count = |posted: Posted| self.ledger.iter().filter(|entry| **entry == (saga, posted)).count();
        (count(Posted::Effect), count(Posted::Undo))
    }

    /// Everything that a repetition must leave alone: what `resolved` sagas had is left out if a refusal was mended. A
    /// late copy of the command is then done after all, and whoever resolved the saga answers for it.
    pub(crate) fn dump(&self, resolved: &BTreeSet<Uuid>) -> String {
        let counts = |saga: &Uuid| !(resolved.contains(saga) && self.mended.contains(saga));
        let rows: Vec<_> = self.rows.iter().filter(|(saga, _)| counts(saga)).collect();
        let ledger: Vec<_> = self.ledger.iter().filter(|(saga, _)| counts(saga)).collect();
        format!("{rows:?} {:?} {ledger:?}", self.slow.keys())
    }

    pub(crate) fn next_answer(&self) -> Option<DateTime<Utc>> {
        self.slow.values().map(|(due, _)| *due).min()
    }

    /// Somebody mends what made it refuse.
    pub(crate) fn mend(&mut self, saga: Uuid) {
        if self.rows.get(&saga).is_some_and(|row| row.state == State::Declined && row.undone_at.is_none()) {
            self.rows.remove(&saga);
            self.mended.insert(saga);
        }
    }

    /// What becomes of a command that is new: always the same for a saga.
    fn verdict(&self, saga: Uuid, can_decline: bool) -> State {
        let mut random = self.dice(saga, 0);
        let declines = random.percent(self.habits.declines) && !self.mended.contains(&saga);
        if random.percent(self.habits.ponders) {
            State::Pending
        } else if declines && can_decline {
            State::Declined
        } else {
            State::Done
        }
    }

    /// Whether its transaction fails over the command of `saga`.
    pub(crate) fn chokes_on(&self, saga: Uuid) -> bool {
        self.dice(saga, 1).percent(self.habits.chokes)
    }

    /// Always the same for a saga and a `question`.
    fn dice(&self, saga: Uuid, question: u64) -> Random {
        let (high, low) = saga.as_u64_pair();
        Random::new(self.salt ^ high ^ low.rotate_left(17) ^ question)
    }

    /// One transaction: commands that are new are done once, then undos that are new. An undo that came first in the
    /// batch goes before its command. Returns the rows that changed.
    pub(crate) fn apply(
        &mut self,
        batch: &[Delivery<Asked>],
        can_decline: bool,
        now: DateTime<Utc>,
        sabotage: Sabotage,
    ) -> BTreeMap<Uuid, Row> {
        let mut changed = BTreeMap::new();
        let mut undos = BTreeSet::new();
        for delivery in batch {
            let saga = subject(delivery);
            if delivery.message == Asked::Undo {
                undos.insert(saga);
            } else if sabotage == Sabotage::NoDedupe && self.rows.get(&saga).is_some_and(|row| row.state == State::Done)
            {
                self.ledger.push((saga, Posted::Effect));
            } else if !undos.contains(&saga) && !self.rows.contains_key(&saga) {
                let state = self.verdict(saga, can_decline);
                let answered_at = (state != State::Pending).then_some(now);
                match state {
                    State::Pending => drop(self.slow.insert(saga, (now + SLOW, delivery.clone()))),
                    State::Done => self.ledger.push((saga, Posted::Effect)),
                    _ => {}
                }
                let row = Row { state, answered_at, undone_at: None };
                self.rows.insert(saga, row.clone());
                changed.insert(saga, row);
            }
        }
        for saga in undos {
            let before = self.rows.get(&saga);
            if before.is_some_and(|row| row.undone_at.is_some()) {
                continue;
            }
            let state = match before.map(|row| row.state) {
                Some(State::Done) => State::Undone,
                Some(State::Pending) | None => State::Refused,
                Some(state) => state,
            };
            let answered_at = before.and_then(|row| row.answered_at).or(Some(now));
            let row = Row { state, answered_at, undone_at: Some(now) };
            if state == State::Undone {
                self.ledger.push((saga, Posted::Undo));
            }
            if sabotage != Sabotage::NoTombstone || before.is_some() {
                self.rows.insert(saga, row.clone());
            }
            self.slow.remove(&saga);
            changed.insert(saga, row);
        }
        changed
    }

    /// Does what is due and still pending, and returns all that is due.
    pub(crate) fn wake(&mut self, now: DateTime<Utc>) -> Vec<(Uuid, Delivery<Asked>, Row)> {
        let mut due = Vec::new();
        for (saga, (_, command)) in self.slow.iter().filter(|(_, (due, _))| *due <= now) {
            let row = self.rows.get_mut(saga).expect("a pending row");
            if row.state == State::Pending {
                *row = Row { state: State::Done, answered_at: Some(now), undone_at: None };
                self.ledger.push((*saga, Posted::Effect));
            }
            due.push((*saga, command.clone(), row.clone()));
        }
        due
    }
}

/// The saga that a command belongs to.
pub(crate) fn subject(delivery: &Delivery<Asked>) -> Uuid {
    delivery.envelope.saga().expect("a command names its saga")
}
