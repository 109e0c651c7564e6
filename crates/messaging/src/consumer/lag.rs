//! How far a consumer is behind, for the metrics.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use chrono::Utc;
use rdkafka::consumer::Consumer;
use rdkafka::{Offset, TopicPartitionList};

use super::context::TopicPartition;
use super::run::Loop;
use crate::{BatchHandler, Record, metrics};

const INTERVAL: Duration = Duration::from_secs(5);
const BROKER_TIMEOUT: Duration = Duration::from_secs(1);

/// What is known between two measurements.
pub(super) struct Lag {
    measured: Instant,
    /// Where reading begins in partitions of which nothing is processed yet.
    starts: HashMap<TopicPartition, i64>,
    /// By topic without prefix: the timestamp of the oldest message of the batch that is, or was last, in hand.
    oldest: HashMap<String, i64>,
    /// Every topic that was measured, so that one which is no longer read counts as read.
    topics: BTreeMap<String, i64>,
}

impl Lag {
    pub(super) fn new() -> Self {
        Lag { measured: Instant::now(), starts: HashMap::new(), oldest: HashMap::new(), topics: BTreeMap::new() }
    }

    /// Reading of `partition` goes on at `offset`.
    pub(super) fn begin_at(&mut self, partition: TopicPartition, offset: i64) {
        self.starts.insert(partition, offset);
    }

    /// A batch is taken in hand.
    pub(super) fn take(&mut self, records: &[Record]) {
        self.oldest.clear();
        for record in records {
            let Some(timestamp) = record.timestamp_ms else { continue };
            match self.oldest.get_mut(&record.topic) {
                Some(oldest) => *oldest = timestamp.min(*oldest),
                None => {
                    self.oldest.insert(record.topic.clone(), timestamp);
                }
            }
        }
    }
}

impl<H: BatchHandler> Loop<H> {
    /// Measures, if that was not done lately. One question to each broker, for all partitions.
    pub(super) fn measure_lag(&mut self) {
        if self.lag.measured.elapsed() < INTERVAL || self.asked_for_brokers.is_some() {
            return;
        }
        self.lag.measured = Instant::now();
        let owned = self.shared.owned();
        let is_known = |partition: &&TopicPartition| {
            self.lag.starts.contains_key(*partition) || self.shared.processed(partition).is_some()
        };
        let unknown: Vec<TopicPartition> = owned.iter().filter(|partition| !is_known(partition)).cloned().collect();
        // What cannot be measured stays as it was: it is not nothing.
        let (Some(starts), Some(ends)) = (self.ask_for(&unknown, Offset::Beginning), self.ask_for(&owned, Offset::End))
        else {
            return;
        };
        self.lag.starts.extend(starts);
        self.lag.topics.values_mut().for_each(|lag| *lag = 0);
        for (partition, end) in ends {
            let next = self.shared.processed(&partition).or_else(|| self.lag.starts.get(&partition).copied());
            let topic = partition.0.strip_prefix(&self.batches.config.topic_prefix).unwrap_or(&partition.0).to_owned();
            *self.lag.topics.entry(topic).or_default() += next.map_or(0, |next| (end - next).max(0));
        }
        let now = Utc::now().timestamp_millis();
        for (topic, lag) in &self.lag.topics {
            let labels = [self.shared.group, topic.as_str()];
            metrics::LAG.with_label_values(&labels).set(*lag);
            let oldest = self.lag.oldest.get(topic).filter(|_| *lag > 0);
            let seconds = oldest.map_or(0.0, |oldest| (now - oldest).max(0) as f64 / 1000.0);
            metrics::OLDEST_MESSAGE_AGE.with_label_values(&labels).set(seconds);
        }
    }

    fn ask_for(&self, partitions: &[TopicPartition], which: Offset) -> Option<Vec<(TopicPartition, i64)>> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        let added = partitions.iter().try_for_each(|(topic, number)| list.add_partition_offset(topic, *number, which));
        if partitions.is_empty() || added.is_err() {
            return Some(Vec::new());
        }
        match self.observer.offsets_for_times(list, BROKER_TIMEOUT) {
            Ok(answer) => {
                let known =
                    |(partition, offset)| if let Offset::Offset(at) = offset { Some((partition, at)) } else { None };
                Some(answer.to_topic_map().into_iter().filter_map(known).collect())
            }
            Err(error) => {
                tracing::debug!(consumer.group = self.shared.group, %error, "the lag could not be measured");
                None
            }
        }
    }
}
