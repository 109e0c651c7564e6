use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::ConsumerHealth;
use crate::metrics;

/// A consumer's wait for something that is not its to mend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Wait {
    /// The error, with its sources.
    pub cause: String,
    /// What kind of thing is waited for.
    pub kind: WaitKind,
    /// When the first attempt failed, also when that was in a process before this one.
    pub since: DateTime<Utc>,
    /// How many attempts to apply the batch have failed since then; 0 when it is something else that waits.
    pub attempts: u32,
}

/// What a consumer waits for; a closed set, for the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WaitKind {
    /// The database is down, busy, or refuses the attempt.
    Database,
    /// No broker can be reached, or none acknowledges.
    Broker,
    /// Something else that the handler needs.
    Dependency,
    /// A layer holds the batch: a fault that was asked for.
    Layer,
    /// A record that cannot be read, of a consumer that gives none up.
    Record,
}

impl WaitKind {
    /// Every kind.
    const ALL: [WaitKind; 5] =
        [WaitKind::Database, WaitKind::Broker, WaitKind::Dependency, WaitKind::Layer, WaitKind::Record];

    /// The label of the metrics.
    fn as_str(self) -> &'static str {
        match self {
            WaitKind::Database => "database",
            WaitKind::Broker => "broker",
            WaitKind::Dependency => "dependency",
            WaitKind::Layer => "layer",
            WaitKind::Record => "record",
        }
    }

    /// What a handler waits for that failed with `error`.
    pub(super) fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        let in_database =
            std::iter::successors(Some(error), |error| error.source()).any(|error| error.is::<sqlx::Error>());
        if in_database { WaitKind::Database } else { WaitKind::Dependency }
    }
}

/// What a consumer waits for now: its batch says so, its loop commits it, health and metrics show it.
///
/// A batch that was given up ends in its own time, while the next one is in hand. So it changes nothing here once it is
/// cancelled; whether it is, is asked under the lock, which the loop takes for the next batch after the cancellation.
#[derive(Clone)]
pub(super) struct Waits {
    group: &'static str,
    health: watch::Sender<ConsumerHealth>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Failed attempts at the batch in hand, those of earlier processes too.
    attempts: u32,
    since: Option<DateTime<Utc>>,
}

impl Waits {
    pub(super) fn new(group: &'static str, health: watch::Sender<ConsumerHealth>) -> Self {
        Waits { group, health, state: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A batch begins, of which so many attempts have failed since then, in processes before this one.
    pub(super) fn begin(&self, attempts: u32, since: Option<DateTime<Utc>>) {
        *self.state() = State { attempts, since };
    }

    /// The attempts that have failed, and since when.
    pub(super) fn attempts(&self) -> (u32, Option<DateTime<Utc>>) {
        let state = self.state();
        (state.attempts, state.since)
    }

    /// The state for a batch, unless that is given up.
    fn state_for(&self, cancel: &CancellationToken) -> Option<MutexGuard<'_, State>> {
        let state = self.state();
        (!cancel.is_cancelled()).then_some(state)
    }

    /// An attempt at a batch failed; gives how many have.
    pub(super) fn failed(&self, cancel: &CancellationToken) -> u32 {
        let Some(mut state) = self.state_for(cancel) else { return 0 };
        state.attempts = state.attempts.saturating_add(1);
        state.since.get_or_insert_with(Utc::now);
        state.attempts
    }

    /// An attempt at a batch did not fail for want of a dependency: those before it count no more.
    pub(super) fn succeeded(&self, cancel: &CancellationToken) {
        if let Some(mut state) = self.state_for(cancel) {
            *state = State::default();
        }
    }

    /// The consumer is seen to wait.
    pub(super) fn show(&self, kind: WaitKind, cause: String, attempts: u32) {
        self.show_in(&mut self.state(), kind, cause, attempts);
    }

    fn show_in(&self, state: &mut State, kind: WaitKind, cause: String, attempts: u32) {
        let since = *state.since.get_or_insert_with(Utc::now);
        metrics::WAITING.with_label_values(&[self.group]).set(1);
        for other in WaitKind::ALL {
            let labels = [self.group, other.as_str()];
            let (tries, began) = if other == kind { (attempts, since.timestamp()) } else { (0, 0) };
            metrics::WAIT_ATTEMPTS.with_label_values(&labels).set(tries.into());
            metrics::WAITING_SINCE.with_label_values(&labels).set(began);
        }
        self.health.send_replace(ConsumerHealth::Waiting(Wait { cause, kind, since, attempts }));
    }

    /// The wait is over. Failed attempts still count until one succeeds: the wait may have been given up.
    pub(super) fn over(&self) {
        self.over_in(&mut self.state());
    }

    /// The batch that is, or was, seen to wait is given up.
    pub(super) fn abandon(&self) {
        let mut state = self.state();
        if matches!(&*self.health.borrow(), ConsumerHealth::Waiting(_)) {
            self.over_in(&mut state);
        }
    }

    fn over_in(&self, state: &mut State) {
        if state.attempts == 0 {
            state.since = None;
        }
        metrics::WAITING.with_label_values(&[self.group]).set(0);
        for kind in WaitKind::ALL {
            let labels = [self.group, kind.as_str()];
            metrics::WAIT_ATTEMPTS.with_label_values(&labels).set(0);
            metrics::WAITING_SINCE.with_label_values(&labels).set(0);
        }
        let owned = metrics::OWNED_PARTITIONS.with_label_values(&[self.group]).get();
        self.health.send_replace(ConsumerHealth::Consuming { partitions: usize::try_from(owned).unwrap_or(0) });
    }
}

/// While it lives and has begun, the consumer is seen to wait; however the wait ends, that ends with it, or with the batch
/// being given up.
pub(super) struct Waiting<'w> {
    waits: &'w Waits,
    cancel: &'w CancellationToken,
    begun: bool,
}

impl<'w> Waiting<'w> {
    /// Of the batch that `cancel` gives up.
    pub(super) fn new(waits: &'w Waits, cancel: &'w CancellationToken) -> Self {
        Waiting { waits, cancel, begun: false }
    }

    /// Says so; the first time in the log too.
    pub(super) fn say(&mut self, kind: WaitKind, cause: String, attempts: u32) {
        let Some(mut state) = self.waits.state_for(self.cancel) else { return };
        if !self.begun {
            tracing::warn!(
                consumer.group = self.waits.group,
                cause,
                "a dependency is unavailable: the batch waits for it"
            );
        }
        self.begun = true;
        self.waits.show_in(&mut state, kind, cause, attempts);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.begun {
            return;
        }
        tracing::info!(consumer.group = self.waits.group, "the wait for the dependency is over");
        if let Some(mut state) = self.waits.state_for(self.cancel) {
            self.waits.over_in(&mut state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_was_given_up_changes_nothing_of_the_next_one() {
        let (health, seen) = watch::channel(ConsumerHealth::Joining);
        let waits = Waits::new("given-up", health);
        let (first, second) = (CancellationToken::new(), CancellationToken::new());
        let is_waiting = || matches!(&*seen.borrow(), ConsumerHealth::Waiting(_));

        let mut waiting = Waiting::new(&waits, &first);
        waiting.say(WaitKind::Database, "away".to_owned(), waits.failed(&first));
        assert!(is_waiting() && waits.attempts().0 == 1);
        first.cancel();
        waits.abandon();
        assert!(!is_waiting(), "nobody waits any more");
        assert_eq!(waits.attempts().0, 1, "the attempt is still to be noted");

        waits.begin(0, None);
        let mut next = Waiting::new(&waits, &second);
        for _ in 0..2 {
            next.say(WaitKind::Database, "away".to_owned(), waits.failed(&second));
        }
        let shown = seen.borrow().clone();
        waits.failed(&first);
        waiting.say(WaitKind::Dependency, "something else".to_owned(), 9);
        waits.succeeded(&first);
        drop(waiting);
        assert_eq!((waits.attempts().0, &*seen.borrow()), (2, &shown));

        waits.succeeded(&second);
        drop(next);
        assert!(!is_waiting() && waits.attempts() == (0, None));
    }
}
