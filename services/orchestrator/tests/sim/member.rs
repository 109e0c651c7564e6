//! A member of a consumer group, as `crates/messaging/src/consumer` runs it: it gathers what is ready, and moves its
//! offsets only after the work.

use std::collections::BTreeMap;

use messaging::{Delivery, Envelope, Record};

use crate::log::{Broker, TopicPartition};
use crate::random::Random;

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) group: String,
    pub(crate) id: u64,
    /// Topics with their `ce_type`.
    topics: BTreeMap<String, String>,
    generation: u64,
    /// Partition numbers, as far as it knows.
    pub(crate) owned: Vec<i32>,
    /// Where it reads next.
    position: BTreeMap<TopicPartition, i64>,
    /// What is wholly processed since the assignment.
    processed: BTreeMap<TopicPartition, i64>,
    uncommitted: BTreeMap<TopicPartition, i64>,
}

impl Member {
    pub(crate) fn new(group: &str, id: u64, topics: BTreeMap<String, String>) -> Self {
        Member {
            group: group.to_owned(),
            id,
            topics,
            generation: 0,
            owned: Vec::new(),
            position: BTreeMap::new(),
            processed: BTreeMap::new(),
            uncommitted: BTreeMap::new(),
        }
    }

    /// Whether partitions were assigned anew, and it has not heard of it.
    pub(crate) fn is_stale(&self, broker: &Broker) -> bool {
        self.generation != broker.generation(&self.group) || !broker.is_member(&self.group, self.id)
    }

    /// Hears of a rebalance: whatever it had read and not finished belongs to the new owner.
    pub(crate) fn notice(&mut self, broker: &mut Broker) {
        broker.join(&self.group, self.id);
        self.generation = broker.generation(&self.group);
        self.owned = broker.assignment(&self.group, self.id);
        self.processed.clear();
        self.uncommitted.clear();
        self.position.clear();
        for topic in self.topics.keys() {
            for partition in &self.owned {
                let partition = (topic.clone(), *partition);
                let committed = broker.committed(&self.group, &partition);
                self.position.insert(partition, committed);
            }
        }
    }

    /// Up to `most` records of what is ready; those of one partition in their order.
    pub(crate) fn gather(&mut self, broker: &Broker, random: &mut Random, most: usize) -> Vec<Record> {
        let mut records = Vec::new();
        while records.len() < most {
            let ready: Vec<TopicPartition> = self
                .position
                .iter()
                .filter(|((topic, partition), offset)| **offset < broker.end(topic, *partition))
                .map(|(partition, _)| partition.clone())
                .collect();
            if ready.is_empty() {
                break;
            }
            let from = random.pick(&ready).clone();
            let offset = self.position.get_mut(&from).expect("it is ready");
            records.extend(broker.read(&from.0, from.1, *offset).cloned());
            *offset += 1;
        }
        records
    }

    /// Reads the envelope of a record, as every consumer does before its service sees it.
    ///
    /// # Panics
    /// When the record is one that no service of the platform publishes.
    pub(crate) fn open(&self, record: &Record) -> Envelope {
        let envelope = Envelope::of(record).expect("an envelope");
        assert_eq!(self.topics.get(&record.topic), Some(&envelope.event_type), "on {}", record.topic);
        envelope
    }

    /// The work on `records` is done, acknowledgements included.
    pub(crate) fn done(&mut self, records: &[Record]) {
        for record in records {
            let partition = (record.topic.clone(), record.partition);
            if self.position.contains_key(&partition) {
                for offsets in [&mut self.processed, &mut self.uncommitted] {
                    let next = offsets.entry(partition.clone()).or_default();
                    *next = (*next).max(record.offset + 1);
                }
            }
        }
    }

    /// Commits what is done. Tells whether there was something.
    pub(crate) fn commit(&mut self, broker: &mut Broker) -> bool {
        let offsets = std::mem::take(&mut self.uncommitted);
        let some = !offsets.is_empty();
        if some {
            broker.commit(&self.group, self.id, self.generation, offsets);
        }
        some
    }

    /// The next offset that is not processed.
    pub(crate) fn processed(&self, broker: &Broker, partition: &TopicPartition) -> i64 {
        self.processed.get(partition).copied().unwrap_or_else(|| broker.committed(&self.group, partition))
    }
}

/// `record` as a handler gets it.
pub(crate) fn delivery<M>(record: &Record, envelope: Envelope, message: M) -> Delivery<M> {
    Delivery {
        message,
        topic: record.topic.clone(),
        partition: record.partition,
        offset: record.offset,
        trace: envelope.traceparent.clone(),
        envelope,
    }
}
