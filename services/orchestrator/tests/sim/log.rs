//! Kafka: partitioned logs, consumer groups with committed offsets, and a producer whose acknowledgements get lost.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use messaging::{Outgoing, Record};
use uuid::Uuid;

use crate::random::Random;
use crate::rules::Seen;

/// Every topic has as many, as `kafka/topics.yaml` demands of those of a saga.
pub(crate) const PARTITIONS: i32 = 3;

pub(crate) type TopicPartition = (String, i32);

/// Value and headers.
type Content = (Option<Vec<u8>>, Vec<(String, Option<Vec<u8>>)>);

#[derive(Default)]
pub(crate) struct Broker {
    logs: BTreeMap<TopicPartition, Vec<Record>>,
    groups: BTreeMap<String, Group>,
    /// What was published under an id: the same message has the same bytes whenever it is published. The two answers
    /// to a command share their id, and differ by topic.
    published: BTreeMap<(Uuid, String), Content>,
    pub(crate) seen: Seen,
}

/// Who owns which partition numbers: equal counts and the `range` assignor give a member whole sagas.
#[derive(Default)]
struct Group {
    generation: u64,
    members: BTreeSet<u64>,
    committed: BTreeMap<TopicPartition, i64>,
}

/// How badly the network treats producers, in percent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Network {
    /// The record is in the log, and the producer is told that it is not.
    pub(crate) loses_acks: usize,
    /// The record is not in the log.
    pub(crate) loses_records: usize,
}

pub(crate) fn partition_of(key: &str) -> i32 {
    let bytes = key.bytes().fold(17_i32, |hash, byte| hash.wrapping_mul(31).wrapping_add(i32::from(byte)));
    bytes.rem_euclid(PARTITIONS)
}

impl Broker {
    /// Appends `message`.
    ///
    /// # Panics
    /// When another message on its topic had its id.
    fn append(&mut self, message: &Outgoing, now: DateTime<Utc>) {
        let headers: Vec<(String, Option<Vec<u8>>)> = message
            .attributes()
            .into_iter()
            .map(|(name, value)| (name.to_owned(), Some(value.into_owned().into_bytes())))
            .collect();
        let content = (Some(message.payload.clone()), headers);
        let id = (message.id, message.topic.clone());
        if let Some(first) = self.published.get(&id) {
            assert_eq!(*first, content, "sent again, it is the same message");
            self.seen.insert("a message is published again");
        } else {
            self.published.insert(id, content.clone());
        }
        let (payload, headers) = content;
        let record = Record {
            partition: partition_of(&message.key),
            topic: message.topic.clone(),
            offset: 0,
            timestamp_ms: Some(now.timestamp_millis()),
            key: Some(message.key.clone().into_bytes()),
            payload,
            headers,
        };
        self.store(record);
    }

    fn store(&mut self, mut record: Record) {
        let log = self.logs.entry((record.topic.clone(), record.partition)).or_default();
        record.offset = i64::try_from(log.len()).expect("a short log");
        log.push(record);
    }

    /// Some record once more: somebody redrove it, or a producer of an older time was late.
    pub(crate) fn repeat_any(&mut self, random: &mut Random) {
        let logs: Vec<&Vec<Record>> = self.logs.values().filter(|log| !log.is_empty()).collect();
        if !logs.is_empty() {
            let log = *random.pick(&logs);
            let again = random.pick(log).clone();
            self.store(again);
        }
    }

    /// Where the log ends.
    pub(crate) fn end(&self, topic: &str, partition: i32) -> i64 {
        let log = self.logs.get(&(topic.to_owned(), partition));
        i64::try_from(log.map_or(0, Vec::len)).expect("a short log")
    }

    pub(crate) fn read(&self, topic: &str, partition: i32, offset: i64) -> Option<&Record> {
        self.logs.get(&(topic.to_owned(), partition))?.get(usize::try_from(offset).ok()?)
    }

    /// Every record of `topic`, as long as Kafka keeps it.
    pub(crate) fn all(&self, topic: &str) -> impl Iterator<Item = &Record> {
        (0..PARTITIONS).filter_map(move |partition| self.logs.get(&(topic.to_owned(), partition))).flatten()
    }

    pub(crate) fn join(&mut self, group: &str, member: u64) {
        let group = self.groups.entry(group.to_owned()).or_default();
        if group.members.insert(member) {
            group.generation += 1;
        }
    }

    /// The member left, or did not answer for too long.
    pub(crate) fn leave(&mut self, group: &str, member: u64) {
        let group = self.groups.entry(group.to_owned()).or_default();
        if group.members.remove(&member) {
            group.generation += 1;
        }
    }

    pub(crate) fn is_member(&self, group: &str, member: u64) -> bool {
        self.groups.get(group).is_some_and(|group| group.members.contains(&member))
    }

    pub(crate) fn generation(&self, group: &str) -> u64 {
        self.groups.get(group).map_or(0, |group| group.generation)
    }

    /// The partition numbers of `member`.
    pub(crate) fn assignment(&self, group: &str, member: u64) -> Vec<i32> {
        let Some(group) = self.groups.get(group) else { return Vec::new() };
        let members: Vec<u64> = group.members.iter().copied().collect();
        let owner = |partition: i32| members.get(usize::try_from(partition).expect("not negative") % members.len());
        (0..PARTITIONS).filter(|partition| !members.is_empty() && owner(*partition) == Some(&member)).collect()
    }

    pub(crate) fn committed(&self, group: &str, partition: &TopicPartition) -> i64 {
        self.groups.get(group).and_then(|group| group.committed.get(partition)).copied().unwrap_or(0)
    }

    /// Commits offsets; refused to a member that missed a rebalance.
    pub(crate) fn commit(&mut self, group: &str, member: u64, generation: u64, offsets: BTreeMap<TopicPartition, i64>) {
        let Some(group) = self.groups.get_mut(group) else { return };
        if group.members.contains(&member) && group.generation == generation {
            group.committed.extend(offsets);
        } else {
            self.seen.insert("a commit of offsets is refused");
        }
    }

    /// Every group reads everything again.
    pub(crate) fn rewind(&mut self) {
        self.groups.values_mut().for_each(|group| group.committed.clear());
    }
}

/// A batch of messages on its way: produced again as a whole until every one is acknowledged.
#[derive(Debug)]
pub(crate) struct Publishing {
    messages: Vec<Outgoing>,
    next: usize,
    failed: bool,
}

impl Publishing {
    pub(crate) fn of(messages: Vec<Outgoing>) -> Self {
        Publishing { messages, next: 0, failed: false }
    }

    /// Some of the messages go out. Tells whether all are acknowledged.
    pub(crate) fn go_on(
        &mut self,
        broker: &mut Broker,
        network: Network,
        random: &mut Random,
        now: DateTime<Utc>,
    ) -> bool {
        let some = 1 + random.below(3);
        for message in self.messages.iter().skip(self.next).take(some) {
            let lost = random.percent(network.loses_records);
            if !lost {
                broker.append(message, now);
            }
            self.failed |= lost || random.percent(network.loses_acks);
        }
        self.next += some;
        if self.next < self.messages.len() {
            return false;
        }
        self.next = 0;
        !std::mem::take(&mut self.failed)
    }
}
