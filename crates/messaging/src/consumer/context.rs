use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::ConsumerHealth;
use super::note::Note;
use crate::{metrics, watchdog};

/// Topic (as the broker names it) and partition.
pub(super) type TopicPartition = (String, i32);

/// What the loop, the work in flight and the rebalance callback know together.
pub(super) struct Shared {
    pub(super) group: &'static str,
    drain_timeout: Duration,
    state: Mutex<State>,
    idle: Condvar,
    /// Set when the last broker connection is lost; librdkafka does not say when one is back.
    pub(super) brokers_down: AtomicBool,
    pub(super) health: watch::Sender<ConsumerHealth>,
}

#[derive(Default)]
struct State {
    owned: HashSet<TopicPartition>,
    /// Counts rebalances: what was read before one may belong to somebody else after it.
    generation: u64,
    /// The next offset after what is wholly processed: effects committed, answers acknowledged.
    processed: HashMap<TopicPartition, i64>,
    /// The part of `processed` that the group does not know yet.
    uncommitted: HashMap<TopicPartition, i64>,
    in_flight: Option<CancellationToken>,
    /// Where the batch in hand begins, and what is noted there.
    in_hand: HashMap<TopicPartition, (i64, Note)>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves the maps valid: every change to them is one statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn generation(&self) -> u64 {
        self.state().generation
    }

    pub(super) fn owned(&self) -> Vec<TopicPartition> {
        self.state().owned.iter().cloned().collect()
    }

    /// The partition numbers owned, each once, in order.
    pub(super) fn partitions(&self) -> Vec<i32> {
        let mut partitions: Vec<i32> = self.state().owned.iter().map(|(_, partition)| *partition).collect();
        partitions.sort_unstable();
        partitions.dedup();
        partitions
    }

    pub(super) fn processed(&self, partition: &TopicPartition) -> Option<i64> {
        self.state().processed.get(partition).copied()
    }

    /// Announces work that a rebalance has to wait for, or cancel.
    pub(super) fn begin(&self) -> CancellationToken {
        let cancel = CancellationToken::new();
        self.state().in_flight = Some(cancel.clone());
        cancel
    }

    /// The work of `begin` ended; `offsets` are wholly processed by it. Counts for nothing when it was
    /// cancelled meanwhile: the partitions may have another owner.
    pub(super) fn end(&self, cancel: &CancellationToken, offsets: HashMap<TopicPartition, i64>) {
        let mut state = self.state();
        if !cancel.is_cancelled() {
            for (partition, next) in offsets {
                if state.owned.contains(&partition) {
                    state.in_hand.remove(&partition);
                    state.processed.insert(partition.clone(), next);
                    state.uncommitted.insert(partition, next);
                }
            }
            state.in_flight = None;
        }
        drop(state);
        self.idle.notify_all();
    }

    /// Everything before these offsets is processed or was given to nobody. Tells whether that is new.
    pub(super) fn passed(&self, positions: impl IntoIterator<Item = (TopicPartition, i64)>) -> bool {
        let mut state = self.state();
        let mut news = false;
        for (partition, position) in positions {
            if state.owned.contains(&partition) && state.processed.get(&partition).is_none_or(|next| *next < position) {
                state.processed.insert(partition.clone(), position);
                state.uncommitted.insert(partition, position);
                news = true;
            }
        }
        news
    }

    /// The work of `begin` was given up: nobody waits for it any more.
    pub(super) fn abandon(&self) {
        self.state().in_flight = None;
    }

    /// A batch is taken in hand, with what is noted where it begins.
    pub(super) fn hold(&self, notes: HashMap<TopicPartition, (i64, Note)>) {
        self.state().in_hand = notes;
    }

    /// The process has lived through an attempt at the batch in hand. Gives the notes that this changes.
    pub(super) fn survived(&self, attempts: u32, since: Option<DateTime<Utc>>) -> HashMap<TopicPartition, (i64, Note)> {
        let mut changed = HashMap::new();
        for (partition, (first, note)) in &mut self.state().in_hand {
            let next = Note::survived(attempts, since);
            if *note != next {
                *note = next;
                changed.insert(partition.clone(), (*first, next));
            }
        }
        changed
    }

    /// Takes the offsets that are to be committed now.
    pub(super) fn take_uncommitted(&self) -> HashMap<TopicPartition, i64> {
        std::mem::take(&mut self.state().uncommitted)
    }

    /// Gives the work in flight up to the drain timeout to end, then cancels it.
    fn drain(&self) {
        let state = self.state();
        let waited = self
            .idle
            .wait_timeout_while(state, self.drain_timeout, |state| state.in_flight.is_some())
            .unwrap_or_else(PoisonError::into_inner);
        let (mut state, timeout) = waited;
        if timeout.timed_out()
            && let Some(cancel) = state.in_flight.take()
        {
            tracing::warn!(
                consumer.group = self.group,
                "a batch did not finish before its partitions were revoked: their next owner does it again"
            );
            cancel.cancel();
        }
    }

    fn revoke(&self, revoked: &[TopicPartition]) -> HashMap<TopicPartition, (i64, Note)> {
        self.drain();
        let mut state = self.state();
        state.generation += 1;
        let mut commit = HashMap::new();
        for partition in revoked {
            state.owned.remove(partition);
            state.processed.remove(partition);
            if let Some(next) = state.uncommitted.remove(partition) {
                commit.insert(partition.clone(), (next, Note::default()));
            }
            // Given up with the process alive: its next owner is not to think that one has died of it.
            if let Some((first, note)) = state.in_hand.remove(partition) {
                commit.insert(partition.clone(), (first, Note::survived(note.attempts, note.since)));
            }
        }
        commit
    }

    fn assign(&self, assigned: Vec<TopicPartition>) {
        let mut state = self.state();
        state.generation += 1;
        for partition in assigned {
            state.processed.remove(&partition);
            state.uncommitted.remove(&partition);
            state.owned.insert(partition);
        }
    }

    /// Says that the group is consuming again, or still joining.
    pub(super) fn recovered(&self) {
        let (generation, partitions) = (self.generation(), self.state().owned.len());
        let joined = ConsumerHealth::Consuming { partitions };
        self.health.send_replace(if generation == 0 { ConsumerHealth::Joining } else { joined });
    }

    fn publish_ownership(&self) {
        let partitions = self.state().owned.len();
        metrics::OWNED_PARTITIONS.with_label_values(&[self.group]).set(i64::try_from(partitions).unwrap_or(i64::MAX));
        self.health.send_if_modified(|health| {
            let next = ConsumerHealth::Consuming { partitions };
            let changed = !matches!(health, ConsumerHealth::Waiting { .. }) && *health != next;
            if changed {
                *health = next;
            }
            changed
        });
    }
}

pub(super) struct GroupContext {
    shared: Arc<Shared>,
}

impl GroupContext {
    pub(super) fn new(group: &'static str, drain_timeout: Duration, health: watch::Sender<ConsumerHealth>) -> Self {
        GroupContext {
            shared: Arc::new(Shared {
                group,
                drain_timeout,
                state: Mutex::default(),
                idle: Condvar::new(),
                brokers_down: AtomicBool::new(false),
                health,
            }),
        }
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }
}

impl ClientContext for GroupContext {
    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.shared.brokers_down.store(true, Ordering::Relaxed);
        }
        watchdog::client_error(self.shared.group, &error, reason);
    }
}

impl ConsumerContext for GroupContext {
    /// Runs on the loop's own thread, inside a poll. The work in flight runs on the runtime's threads, so
    /// waiting for it here cannot deadlock.
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Revoke(partitions) => {
                let offsets = self.shared.revoke(&listed(partitions));
                if !offsets.is_empty() {
                    commit_noted(consumer, self.shared.group, &offsets, CommitMode::Sync);
                }
            }
            Rebalance::Assign(_) => {}
            Rebalance::Error(error) => {
                tracing::warn!(consumer.group = self.shared.group, %error, "a rebalance failed");
                let owned = self.shared.owned();
                self.shared.revoke(&owned);
            }
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(partitions) = rebalance {
            // librdkafka keeps a partition paused from one assignment to the next. Whoever paused before the
            // rebalance pauses again after it, from a state in which nothing is paused.
            if let Err(error) = consumer.resume(partitions) {
                tracing::warn!(consumer.group = self.shared.group, %error, "assigned partitions were not resumed");
            }
            self.shared.assign(listed(partitions));
        }
        self.shared.publish_ownership();
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(error) = result {
            report_commit(self.shared.group, &error);
        }
    }
}

fn listed(partitions: &TopicPartitionList) -> Vec<TopicPartition> {
    partitions.elements().iter().map(|element| (element.topic().to_owned(), element.partition())).collect()
}

/// Commits `offsets`. A refusal is logged, not returned: the messages come again, and change nothing.
pub(super) fn commit(
    consumer: &BaseConsumer<GroupContext>,
    group: &str,
    offsets: HashMap<TopicPartition, i64>,
    mode: CommitMode,
) {
    let plain = offsets.into_iter().map(|(partition, next)| (partition, (next, Note::default())));
    commit_noted(consumer, group, &plain.collect(), mode);
}

/// [`commit`] with a note at each offset.
pub(super) fn commit_noted(
    consumer: &BaseConsumer<GroupContext>,
    group: &str,
    offsets: &HashMap<TopicPartition, (i64, Note)>,
    mode: CommitMode,
) {
    let mut list = TopicPartitionList::with_capacity(offsets.len());
    let added: KafkaResult<()> = offsets.iter().try_for_each(|((topic, partition), (next, note))| {
        let mut element = list.add_partition(topic, *partition);
        let text = note.text();
        if !text.is_empty() {
            element.set_metadata(text);
        }
        element.set_offset(Offset::Offset(*next))
    });
    if let Err(error) = added.and_then(|()| consumer.commit(&list, mode)) {
        report_commit(group, &error);
    }
}

fn report_commit(group: &str, error: &KafkaError) {
    match error.rdkafka_error_code() {
        // Somebody else owns the partitions by now and does the same work again, with no further effect.
        Some(
            RDKafkaErrorCode::IllegalGeneration
            | RDKafkaErrorCode::UnknownMemberId
            | RDKafkaErrorCode::RebalanceInProgress
            | RDKafkaErrorCode::NoOffset
            | RDKafkaErrorCode::AssignmentLost,
        ) => tracing::debug!(consumer.group = group, %error, "offsets were not committed after a rebalance"),
        _ => tracing::warn!(consumer.group = group, %error, "offsets were not committed: the messages come again"),
    }
}
