//! What outlives the process: failed attempts, and a message that ends whatever process handles it.
//!
//! Both stand in the metadata of the committed offset ([`Note`]), which a normal commit clears. Before the first batch of a
//! partition after an assignment its note counts one more beginning; processes that die there leave it so. After three the
//! messages are handled one by one, each after its own note, and one with which three more processes end is a dead letter.
//! A beginning counts only for [`SUDDEN`]: what hangs may wait for a dependency, and a message is never given up for that.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::consumer::{CommitMode, Consumer};

use super::context::{TopicPartition, commit_noted};
use super::note::Note;
use super::run::{Loop, listed};
use crate::{BatchHandler, Record};

const BROKER_TIMEOUT: Duration = Duration::from_secs(2);
/// A process that a message ends has ended by then. Shorter than any wait for a dependency that hangs, so that processes
/// which are killed meanwhile count for nothing.
const SUDDEN: Duration = Duration::from_secs(2);
/// The notes of a wait are not committed more often.
const NOTED_EVERY: Duration = Duration::from_secs(1);
/// So many messages are handled one by one before batches are trusted again.
const ONE_BY_ONE: usize = 1_000;

/// What a loop remembers of its partitions.
#[derive(Default)]
pub(super) struct Memory {
    /// Of partitions that nothing was begun of since they were assigned: what their last owner left.
    /// With the offset that it was left for: another message has nothing to do with it.
    fresh: HashMap<TopicPartition, (Option<i64>, Note)>,
    /// The broker did not say what was left: it is asked again before the first batch.
    unknown: bool,
    /// Messages that are still to be handled one by one.
    pub(super) one_by_one: usize,
    /// The batch in hand.
    in_hand: Option<InHand>,
}

struct InHand {
    begun: Instant,
    noted: Instant,
    /// The failed attempts that are noted.
    attempts: u32,
    /// Whether a beginning is noted that is to be taken back if the process lives on.
    counted: bool,
}

impl<H: BatchHandler> Loop<H> {
    /// Reads what the last owners of the partitions left, and where they were. Nothing is lost without it.
    pub(super) fn recall(&mut self) {
        self.memory = Memory::default();
        let owned = self.shared.owned();
        if owned.is_empty() {
            return;
        }
        let committed = match self.consumer.committed_offsets(listed(&owned), BROKER_TIMEOUT) {
            Ok(committed) => committed,
            Err(error) => {
                tracing::warn!(consumer.group = self.shared.group, %error, "what was committed could not be read");
                self.memory.unknown = true;
                return;
            }
        };
        for element in committed.elements() {
            let partition = (element.topic().to_owned(), element.partition());
            let committed = if let Offset::Offset(offset) = element.offset() { Some(offset) } else { None };
            if let Some(offset) = committed {
                self.lag.begin_at(partition.clone(), offset);
            }
            self.memory.fresh.insert(partition, (committed, Note::read(element.metadata())));
        }
        if !self.batches.raw && self.memory.fresh.values().any(|(_, note)| note.is_suspicious()) {
            tracing::error!(
                consumer.group = self.shared.group,
                "processes have died with the next batch again and again: its messages are handled one by one"
            );
            self.memory.one_by_one = ONE_BY_ONE;
        }
    }

    /// Notes that `records` are begun, where that is to outlive this process. Gives the note of the first record, if that
    /// record is to be given up.
    pub(super) fn note_begin(&mut self, records: &[Record]) -> Option<Note> {
        if self.memory.unknown {
            self.recall();
        }
        let alone = self.memory.one_by_one > 0;
        let is_owed = self.memory.fresh.values().any(|(_, note)| note.is_suspicious());
        self.memory.one_by_one =
            self.memory.one_by_one.saturating_sub(records.len()).max(usize::from(alone && is_owed));
        let mut notes: HashMap<TopicPartition, (i64, Note)> = HashMap::new();
        for record in records {
            let partition = (self.batches.config.topic(&record.topic), record.partition);
            let (first, _) = notes.entry(partition).or_insert((record.offset, Note::default()));
            *first = (*first).min(record.offset);
        }
        let (mut attempts, mut since, mut counted) = (0, None, false);
        for (partition, (first, note)) in &mut notes {
            let fresh = self.memory.fresh.remove(partition);
            *note =
                fresh.filter(|(left_for, _)| *left_for == Some(*first)).map_or_else(Note::default, |(_, note)| note);
            if note.attempts > attempts {
                (attempts, since) = (note.attempts, note.since);
            }
            // A raw record has nowhere to go, so it is not counted.
            if !self.batches.raw && (alone || fresh.is_some()) {
                if alone && note.is_guilty() {
                    return Some(*note);
                }
                *note = note.begin(alone);
                counted = true;
            }
        }
        self.batches.waits.begin(attempts, since);
        if counted {
            self.commit_notes(&notes);
        }
        self.shared.hold(notes);
        let now = Instant::now();
        self.memory.in_hand = Some(InHand { begun: now, noted: now, attempts, counted });
        None
    }

    /// Looks at the batch in hand from time to time, while it takes its time.
    pub(super) fn note_progress(&mut self) {
        let (attempts, since) = self.batches.waits.attempts();
        let Some(hand) = self.memory.in_hand.as_mut().filter(|hand| hand.noted.elapsed() >= NOTED_EVERY) else {
            return;
        };
        let lived = hand.counted && (attempts > hand.attempts || hand.begun.elapsed() >= SUDDEN);
        if lived || attempts > hand.attempts {
            hand.counted &= !lived;
            (hand.attempts, hand.noted) = (attempts, Instant::now());
            let notes = self.shared.survived(attempts, since);
            commit_noted(&self.consumer, self.shared.group, &notes, CommitMode::Async);
        }
    }

    /// The batch in hand ended, or was given up with the process still alive.
    pub(super) fn note_end(&mut self, done: bool) {
        self.memory.in_hand = None;
        let (attempts, since) = self.batches.waits.attempts();
        self.batches.waits.begin(0, None);
        let notes = self.shared.survived(attempts, since);
        self.shared.hold(HashMap::new());
        if !done && !notes.is_empty() {
            self.commit_notes(&notes);
        }
    }

    /// Waits until they are committed. That is no hang: the client gives up by itself.
    fn commit_notes(&self, notes: &HashMap<TopicPartition, (i64, Note)>) {
        self.batches.progress.step();
        commit_noted(&self.consumer, self.shared.group, notes, CommitMode::Sync);
        self.batches.progress.step();
    }
}
