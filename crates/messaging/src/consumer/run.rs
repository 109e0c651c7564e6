use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::batch::Batches;
use super::context::{GroupContext, Shared, TopicPartition, commit};
use super::lag::Lag;
use super::memory::Memory;
use super::timers::Barrier;
use super::wait::WaitKind;
use super::{Gate, Timers};
use crate::watchdog::is_connection_loss;
use crate::{BatchHandler, Record, failpoint};

/// How long a poll waits for the first message.
const POLL: Duration = Duration::from_millis(50);
/// How long work may take before the loop pauses its partitions and polls, to stay in its group.
const PATIENCE: Duration = Duration::from_millis(250);
/// How often gate and timers are asked.
const HOUSEKEEPING: Duration = Duration::from_millis(200);
/// A batch ends at so many bytes, so that hostile sizes cannot fill the memory.
const MAX_BATCH_BYTES: usize = 8 * 1024 * 1024;

/// The one loop of a consumer; it runs on a thread of its own and is the only one to touch the client.
pub(super) struct Loop<H> {
    pub(super) consumer: BaseConsumer<GroupContext>,
    /// Asks the broker questions on a connection of its own: on the consumer's, each would wait behind a
    /// fetch that the broker holds for up to half a second.
    pub(super) observer: BaseConsumer,
    pub(super) shared: Arc<Shared>,
    pub(super) batches: Arc<Batches<H>>,
    pub(super) deferred: HashSet<String>,
    gate: Option<Arc<dyn Gate>>,
    timers: Option<Arc<dyn Timers>>,
    pub(super) barrier: Option<Barrier>,
    runtime: Handle,
    shutdown: CancellationToken,
    /// Read while partitions were being paused; goes first into the next batch.
    carried: Vec<Record>,
    deferred_paused: bool,
    housekept: Instant,
    generation: u64,
    /// The last error of a poll, so that one which repeats is logged once.
    poll_error: Cell<Option<RDKafkaErrorCode>>,
    /// When the missing brokers were last asked for; none while one is there.
    pub(super) asked_for_brokers: Option<Instant>,
    pub(super) memory: Memory,
    pub(super) lag: Lag,
}

impl<H: BatchHandler> Loop<H> {
    #[expect(clippy::too_many_arguments, reason = "called once, from the builder whose fields these are")]
    pub(super) fn new(
        consumer: BaseConsumer<GroupContext>,
        observer: BaseConsumer,
        shared: Arc<Shared>,
        batches: Arc<Batches<H>>,
        deferred: HashSet<String>,
        gate: Option<Arc<dyn Gate>>,
        timers: Option<Arc<dyn Timers>>,
        runtime: Handle,
        shutdown: CancellationToken,
    ) -> Self {
        Loop {
            consumer,
            observer,
            shared,
            batches,
            deferred,
            gate,
            timers,
            barrier: None,
            runtime,
            shutdown,
            carried: Vec::new(),
            deferred_paused: false,
            housekept: Instant::now(),
            generation: 0,
            poll_error: Cell::new(None),
            asked_for_brokers: None,
            memory: Memory::default(),
            lag: Lag::new(),
        }
    }

    pub(super) fn run(mut self) {
        while !self.shutdown.is_cancelled() {
            self.batches.progress.step();
            self.notice_rebalance();
            if self.housekept.elapsed() >= HOUSEKEEPING {
                self.look_for_brokers();
                self.note_passed();
                self.measure_lag();
                self.ask_gate();
                if let Some(timers) = self.timers.clone() {
                    self.run_timers(&timers);
                }
                self.housekept = Instant::now();
            }
            let records = self.gather();
            if !records.is_empty() {
                self.process(records);
            }
        }
        self.commit(CommitMode::Sync);
        // Leaves the group at once instead of after the session timeout; revocation runs inside.
        self.consumer.unsubscribe();
    }

    /// What is ready, up to the batch size. Waits only for the first message.
    fn gather(&mut self) -> Vec<Record> {
        let generation = self.shared.generation();
        let limit = if self.memory.one_by_one > 0 { 1 } else { self.batches.config.max_batch };
        let mut records = std::mem::take(&mut self.carried);
        if records.len() > limit {
            self.carried = records.split_off(limit);
        }
        let mut bytes = 0;
        let mut wait = if records.is_empty() { POLL } else { Duration::ZERO };
        while records.len() < limit && bytes < MAX_BATCH_BYTES {
            let Some(record) = self.poll(wait) else { break };
            bytes += record.size();
            records.push(record);
            wait = Duration::ZERO;
        }
        if self.shared.generation() != generation {
            // Whoever owns these partitions now starts at the committed offsets, so they come again.
            records.clear();
            self.carried.clear();
        }
        records
    }

    fn poll(&self, wait: Duration) -> Option<Record> {
        match self.consumer.poll(wait)? {
            Ok(message) => {
                self.poll_error.set(None);
                Some(Record::copy_of(&message, &self.batches.config.topic_prefix))
            }
            Err(error) => {
                let code = error.rdkafka_error_code();
                if code.is_none_or(|code| !is_connection_loss(code)) && self.poll_error.replace(code) != code {
                    tracing::warn!(consumer.group = self.shared.group, %error, "a poll failed; it is repeated");
                }
                None
            }
        }
    }

    /// Says once that no broker can be reached and once that one is back.
    fn look_for_brokers(&mut self) {
        const INTERVAL: Duration = Duration::from_secs(1);
        const PATIENCE: Duration = Duration::from_millis(300);
        let group = self.shared.group;
        match self.asked_for_brokers {
            None if self.shared.brokers_down.load(Ordering::Relaxed) => {
                let cause = "no broker can be reached".to_owned();
                tracing::warn!(consumer.group = group, "no broker can be reached: the consumer waits for one");
                self.batches.waits.show(WaitKind::Broker, cause, 0);
                self.asked_for_brokers = Some(Instant::now());
            }
            Some(asked) if asked.elapsed() >= INTERVAL => {
                self.shared.brokers_down.store(false, Ordering::Relaxed);
                let answered = self.observer.fetch_metadata(Some("__consumer_offsets"), PATIENCE).is_ok();
                self.asked_for_brokers = (!answered).then(Instant::now);
                if answered {
                    tracing::info!(consumer.group = group, "a broker is back");
                    self.batches.waits.over();
                    self.shared.recovered();
                }
            }
            _ => {}
        }
    }

    /// The markers of transactions, and what a transaction aborted, take offsets that are given to nobody. Whoever waits
    /// for the end of a partition, timers or people who look at the lag, would wait for them.
    fn note_passed(&self) {
        let Ok(positions) = self.consumer.position() else { return };
        let config = &self.batches.config;
        let held: HashSet<TopicPartition> =
            self.carried.iter().map(|record| (config.topic(&record.topic), record.partition)).collect();
        let elements = positions.elements();
        let passed = elements.iter().filter_map(|element| {
            let Offset::Offset(position) = element.offset() else { return None };
            let partition = (element.topic().to_owned(), element.partition());
            // Between two batches this loop holds no other record that is not processed.
            (!held.contains(&partition)).then_some((partition, position))
        });
        if self.shared.passed(passed) {
            self.commit(CommitMode::Async);
        }
    }

    fn process(&mut self, records: Vec<Record>) {
        let mut offsets: HashMap<TopicPartition, i64> = HashMap::new();
        for record in &records {
            let next = offsets.entry((self.batches.config.topic(&record.topic), record.partition)).or_default();
            *next = (*next).max(record.offset + 1);
        }
        let (config, deferred, paused) = (&self.batches.config, &self.deferred, self.deferred_paused);
        self.lag.take(&records, |topic| paused && deferred.contains(&config.topic(topic)));
        let given_up = self.note_begin(&records);
        let batches = self.batches.clone();
        let done = self.drive(offsets, async move |cancel| match given_up {
            Some(note) => batches.give_up(&records, note, &cancel).await.is_ok(),
            None => batches.process(records, &cancel).await.is_ok(),
        });
        if done == Some(true) {
            failpoint::hit("before-offsets", self.shared.group);
            self.commit(CommitMode::Async);
        }
        self.note_end(done == Some(true));
    }

    fn commit(&self, mode: CommitMode) {
        let offsets = self.shared.take_uncommitted();
        if !offsets.is_empty() {
            commit(&self.consumer, self.shared.group, offsets, mode);
        }
    }

    /// Runs `work` on the runtime and returns what it came to. If it takes long, the partitions pause and the
    /// loop goes on polling, so that the group keeps this member and rebalances are noticed. `None` when it
    /// was given up: after a revocation or a shutdown whose drain timeout passed. `processed` are the offsets
    /// that are done when it is.
    pub(super) fn drive<T, F>(
        &mut self,
        processed: HashMap<TopicPartition, i64>,
        work: impl FnOnce(CancellationToken) -> F,
    ) -> Option<T>
    where
        T: Done + Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let cancel = self.shared.begin();
        let (shared, future, token) = (self.shared.clone(), work(cancel.clone()), cancel.clone());
        // Spawned, never dropped half way: a cancelled transaction would return its connection to the pool
        // with the transaction still open.
        let mut task = self.runtime.spawn(async move {
            let result = future.await;
            shared.end(&token, if result.is_done() { processed } else { HashMap::new() });
            result
        });
        let mut paused_generation = None;
        let mut stopping: Option<Instant> = None;
        let result = loop {
            match self.runtime.block_on(async { tokio::time::timeout(PATIENCE, &mut task).await }) {
                Ok(Ok(result)) => break (!cancel.is_cancelled()).then_some(result),
                Ok(Err(failure)) => {
                    crate::watchdog::exit(
                        self.shared.group,
                        &format!("the work of a batch ended abnormally: {failure}"),
                    );
                }
                Err(_) => {}
            }
            let generation = self.shared.generation();
            if paused_generation != Some(generation) {
                self.pause(&self.shared.owned());
                paused_generation = Some(generation);
            }
            while let Some(record) = self.poll(Duration::ZERO) {
                self.carried.push(record);
            }
            if self.shared.generation() != generation {
                self.carried.clear();
            }
            if cancel.is_cancelled() {
                break None;
            }
            self.note_progress();
            self.measure_lag();
            if self.shutdown.is_cancelled() {
                let since = *stopping.get_or_insert_with(Instant::now);
                if since.elapsed() >= Duration::from_millis(self.batches.config.drain_timeout_ms.into()) {
                    cancel.cancel();
                }
            }
        };
        if result.is_none() {
            self.shared.abandon();
            // That no broker can be reached is no wait of the work's.
            if self.asked_for_brokers.is_none() {
                self.batches.waits.abandon();
            }
        }
        if paused_generation.is_some() {
            // After a rebalance nothing is paused but by this call, and the gate is asked anew.
            let gated = self.deferred_paused && self.shared.generation() == self.generation;
            let mut resumed = self.shared.owned();
            resumed.retain(|(topic, _)| !(gated && self.deferred.contains(topic)));
            self.resume(&resumed);
        }
        result
    }

    fn notice_rebalance(&mut self) {
        let generation = self.shared.generation();
        if generation != self.generation {
            self.generation = generation;
            self.recall();
            self.barrier = None;
            self.deferred_paused = false;
            self.ask_gate();
        }
    }

    fn ask_gate(&mut self) {
        let Some(gate) = self.gate.clone() else { return };
        let partitions = self.shared.partitions();
        if partitions.is_empty() {
            return;
        }
        let answer = self.drive(HashMap::new(), async move |_| gate.pause_deferred(&partitions).await);
        let Some(pause) = answer.filter(|pause| *pause != self.deferred_paused) else { return };
        let mut deferred = self.shared.owned();
        deferred.retain(|(topic, _)| self.deferred.contains(topic));
        if pause {
            self.pause(&deferred);
        } else {
            self.resume(&deferred);
        }
        tracing::debug!(consumer.group = self.shared.group, pause, "starts pause or go on");
        self.deferred_paused = pause;
    }

    fn pause(&self, partitions: &[TopicPartition]) {
        if let Err(error) = self.consumer.pause(&listed(partitions)) {
            tracing::debug!(consumer.group = self.shared.group, %error, "partitions were not paused");
        }
    }

    fn resume(&self, partitions: &[TopicPartition]) {
        if let Err(error) = self.consumer.resume(&listed(partitions)) {
            tracing::debug!(consumer.group = self.shared.group, %error, "partitions were not resumed");
        }
    }
}

/// Whether work ended so that its offsets are done.
pub(super) trait Done {
    fn is_done(&self) -> bool;
}

impl Done for bool {
    fn is_done(&self) -> bool {
        *self
    }
}

impl<T, E> Done for Result<T, E> {
    fn is_done(&self) -> bool {
        self.is_ok()
    }
}

pub(super) fn listed(partitions: &[TopicPartition]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for (topic, partition) in partitions {
        list.add_partition(topic, *partition);
    }
    list
}
