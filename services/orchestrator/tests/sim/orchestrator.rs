//! A replica of the orchestrator: the loop of its consumer cut into the phases between which it can die, around the
//! decisions that the real one makes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use messaging::{Delivery, Record};
use orchestrator::decisions::{
    DueTimer, Inbound, Pinned, Settled, Settlement, Snapshot, decide_batch, decide_timers, decode,
};
use saga::Definition;
use uuid::Uuid;

use crate::log::{Publishing, TopicPartition};
use crate::member::{Member, delivery};
use crate::rules::Sabotage;
use crate::surroundings::Surroundings;

/// Id of the only row in `definition`.
pub(crate) const DEFINITION_ID: i32 = 1;

#[derive(Debug)]
pub(crate) struct Orchestrator {
    pub(crate) member: Member,
    work: Work,
    barrier: Option<Barrier>,
    /// What becomes of the timers fired last.
    unsettled: HashMap<Uuid, Settlement>,
}

/// What it has in hand. All of it is lost in a crash.
#[derive(Debug, Default)]
enum Work {
    #[default]
    Idle,
    /// The sagas were read; nothing is decided.
    Loaded { records: Vec<Record>, snapshot: Snapshot },
    /// The decision is stored.
    Publishing { records: Vec<Record>, publishing: Publishing },
    /// Everything is acknowledged; the offsets are as they were.
    Acknowledged { records: Vec<Record> },
    /// Due timers were read with their sagas.
    DueLoaded { timers: Vec<DueTimer>, cutoff: DateTime<Utc>, now: DateTime<Utc> },
    /// Their transitions are stored, the rows due now.
    Firing { receipts: Vec<Uuid>, publishing: Publishing },
    /// Everything is acknowledged; the rows are as they were.
    Fired { receipts: Vec<Uuid> },
}

/// Timers that were due wait until the answers that were there by then are read.
#[derive(Debug)]
struct Barrier {
    cutoff: DateTime<Utc>,
    partitions: Vec<i32>,
    ends: BTreeMap<TopicPartition, i64>,
}

impl Orchestrator {
    pub(crate) fn new(id: u64, definition: &Definition) -> Self {
        let trigger = definition.trigger();
        let mut topics: BTreeMap<String, String> =
            definition.reply_channels().map(|(topic, event_type)| (topic.to_owned(), event_type.to_owned())).collect();
        topics.insert(trigger.topic.clone(), trigger.event_type.clone());
        let member = Member::new("orchestrator", id, topics);
        Orchestrator { member, work: Work::Idle, barrier: None, unsettled: HashMap::new() }
    }

    /// Hears of a rebalance, and gives up what it has in hand.
    pub(crate) fn notice(&mut self, around: &mut Surroundings) {
        self.member.notice(&mut around.broker);
        self.work = Work::Idle;
        self.barrier = None;
    }

    /// Goes on to the next point at which it could die. Tells whether there was something to do.
    pub(crate) fn go_on(&mut self, around: &mut Surroundings) -> bool {
        match std::mem::take(&mut self.work) {
            Work::Idle => return self.begin(around),
            Work::Loaded { records, snapshot } => self.decide(records, snapshot, around),
            Work::Publishing { records, mut publishing } => {
                let acknowledged = around.publish(&mut publishing);
                self.work = match acknowledged {
                    true => Work::Acknowledged { records },
                    false => Work::Publishing { records, publishing },
                };
            }
            Work::Acknowledged { records } => self.member.done(&records),
            Work::DueLoaded { timers, cutoff, now } => self.fire(&timers, cutoff, now, around),
            Work::Firing { receipts, mut publishing } => {
                let acknowledged = around.publish(&mut publishing);
                self.work = match acknowledged {
                    true => Work::Fired { receipts },
                    false => Work::Firing { receipts, publishing },
                };
            }
            Work::Fired { receipts } => around.database.settle(&Settled::of(&self.unsettled, &receipts)),
        }
        true
    }

    /// Commits what is done, looks at its timers, or takes the next batch.
    fn begin(&mut self, around: &mut Surroundings) -> bool {
        if self.member.commit(&mut around.broker) {
            return true;
        }
        let timers_first = around.random.percent(30);
        (timers_first && self.look_at_timers(around)) || self.gather(around) || self.look_at_timers(around)
    }

    fn gather(&mut self, around: &mut Surroundings) -> bool {
        let most = 1 + around.random.below(6);
        let records = self.member.gather(&around.broker, &mut around.random, most);
        if records.is_empty() {
            return false;
        }
        self.load(records, around);
        true
    }

    fn load(&mut self, records: Vec<Record>, around: &Surroundings) {
        let deliveries = self.decode(&records, &around.definition);
        let snapshot = around.database.load(deliveries.iter().map(|delivery| delivery.message.saga), around.now);
        self.work = Work::Loaded { records, snapshot };
    }

    fn decode(&self, records: &[Record], definition: &Definition) -> Vec<Delivery<Inbound>> {
        let read = |record: &Record| {
            let envelope = self.member.open(record);
            let message = decode(record, &envelope, record.topic == definition.trigger().topic).expect("a message");
            delivery(record, envelope, message)
        };
        records.iter().map(read).collect()
    }

    fn decide(&mut self, records: Vec<Record>, snapshot: Snapshot, around: &mut Surroundings) {
        let deliveries = self.decode(&records, &around.definition);
        let mut batch: BTreeMap<Uuid, Vec<&Delivery<Inbound>>> = BTreeMap::new();
        for delivery in &deliveries {
            batch.entry(delivery.message.saga).or_default().push(delivery);
        }
        let definition = around.definition.clone();
        let starts = |topic: &str| {
            let pinned = Pinned { id: DEFINITION_ID, definition: definition.clone() };
            Some(pinned).filter(|pinned| pinned.definition.trigger().topic == topic)
        };
        let (changes, folded) =
            decide_batch(&batch, snapshot, &pinned(&definition), starts).expect("nobody breaks the protocol");
        if !changes.is_empty() && around.database.write(changes, around.sabotage).is_err() {
            around.seen.insert("another replica is faster");
            return self.load(records, around);
        }
        if around.sabotage == Sabotage::OffsetsBeforeAcks {
            self.member.done(&records);
            self.member.commit(&mut around.broker);
        }
        let messages = folded.into_iter().flat_map(|folded| folded.outgoing).collect();
        self.work = Work::Publishing { records, publishing: Publishing::of(messages) };
    }

    /// One look: finds due timers, waits behind the barrier, or reads them to fire them.
    fn look_at_timers(&mut self, around: &mut Surroundings) -> bool {
        let Some(barrier) = &self.barrier else {
            let partitions = around.database.find_due(&self.member.owned, around.now);
            if partitions.is_empty() {
                return false;
            }
            let ends = self.ends(&partitions, around);
            self.barrier = Some(Barrier { cutoff: around.now, partitions, ends });
            return true;
        };
        let is_read =
            |(partition, end): (&TopicPartition, &i64)| self.member.processed(&around.broker, partition) >= *end;
        if !barrier.ends.iter().all(is_read) {
            around.seen.insert("timers wait for answers");
            return false;
        }
        let timers = around.database.load_due(&barrier.partitions, barrier.cutoff);
        if timers.iter().any(|timer| timer.emit) {
            around.seen.insert("a deadline is followed by its messages once more");
        }
        self.work = Work::DueLoaded { timers, cutoff: barrier.cutoff, now: around.now };
        self.barrier = None;
        true
    }

    /// Where every answer topic ends.
    fn ends(&self, partitions: &[i32], around: &Surroundings) -> BTreeMap<TopicPartition, i64> {
        let topics = around.definition.reply_channels().map(|(topic, _)| topic);
        topics
            .flat_map(|topic| partitions.iter().map(move |partition| (topic, *partition)))
            .map(|(topic, partition)| ((topic.to_owned(), partition), around.broker.end(topic, partition)))
            .collect()
    }

    fn fire(&mut self, timers: &[DueTimer], cutoff: DateTime<Utc>, now: DateTime<Utc>, around: &mut Surroundings) {
        let (changes, shots) = decide_timers(timers, &pinned(&around.definition), cutoff, now);
        if !changes.is_empty() && around.database.write(changes, around.sabotage).is_err() {
            // The rows are still due: the next look reads them again.
            around.seen.insert("another replica is faster");
            return;
        }
        self.unsettled = shots.iter().map(|shot| (shot.saga.id, shot.settlement)).collect();
        let receipts = shots.iter().map(|shot| shot.saga.id).collect();
        let messages = shots.into_iter().flat_map(|shot| shot.messages).collect();
        self.work = Work::Firing { receipts, publishing: Publishing::of(messages) };
    }
}

fn pinned(definition: &Arc<Definition>) -> HashMap<i32, Arc<Definition>> {
    HashMap::from([(DEFINITION_ID, definition.clone())])
}
