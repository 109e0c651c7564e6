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
    /// By topic without prefix: the timestamp of the oldest message of the batch that is, or was last, in hand; of a topic
    /// that is paused, of the last batch that had messages of it. If there is none, since when some are seen to wait; none
    /// while none are.
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
    pub(super) fn take(&mut self, records: &[Record], is_paused: impl Fn(&str) -> bool) {
        self.oldest.retain(|topic, _| is_paused(topic) && records.iter().all(|record| record.topic != *topic));
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

    /// How many milliseconds old the oldest message of `topic` is at `now`, so far as is known, when `lag` messages wait.
    fn age(&mut self, topic: &str, lag: i64, now: i64) -> i64 {
        if lag == 0 {
            // What comes next is not as old as what was there before.
            self.oldest.remove(topic);
            return 0;
        }
        let oldest = self.oldest.entry(topic.to_owned()).or_insert(now);
        now.saturating_sub(*oldest).max(0)
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
        let lags: Vec<(String, i64)> = self.lag.topics.iter().map(|(topic, lag)| (topic.clone(), *lag)).collect();
        for (topic, lag) in lags {
            let labels = [self.shared.group, topic.as_str()];
            metrics::LAG.with_label_values(&labels).set(lag);
            let seconds = self.lag.age(&topic, lag, now) as f64 / 1000.0;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn records(topics: &[(&str, i64)]) -> Vec<Record> {
        let record = |(topic, at): &(&str, i64)| Record {
            topic: (*topic).to_owned(),
            partition: 0,
            offset: 0,
            timestamp_ms: Some(*at),
            key: None,
            payload: None,
            headers: Vec::new(),
        };
        topics.iter().map(record).collect()
    }

    #[test]
    fn an_age_ends_when_nothing_waits_any_more() {
        let mut lag = Lag::new();
        lag.take(&records(&[("t", 5_000), ("t", 3_000)]), |_| false);
        assert_eq!(lag.age("t", 2, 10_000), 7_000);
        assert_eq!(lag.age("t", 0, 11_000), 0);
        assert_eq!(lag.age("t", 1, 3_600_000), 0, "the next message is no hour old");
        assert_eq!(lag.age("t", 1, 3_605_000), 5_000, "but nobody reads it");
        lag.take(&records(&[("t", 3_599_000)]), |_| false);
        assert_eq!(lag.age("t", 1, 3_606_000), 7_000);
    }

    #[test]
    fn what_waits_on_a_paused_topic_grows_older_while_others_are_read() {
        let mut lag = Lag::new();
        let is_paused = |topic: &str| topic == "starts";
        lag.take(&records(&[("starts", 1_000), ("answers", 2_000)]), |_| false);
        lag.take(&records(&[("answers", 8_000)]), is_paused);
        assert_eq!((lag.age("starts", 50, 9_000), lag.age("answers", 1, 9_000)), (8_000, 1_000));
        assert_eq!(lag.age("starts", 50, 14_000), 13_000);
        // One batch more that was carried over from before the pause.
        lag.take(&records(&[("starts", 4_000)]), is_paused);
        assert_eq!((lag.age("starts", 49, 9_000), lag.age("answers", 1, 9_000)), (5_000, 0));
        lag.take(&records(&[("answers", 9_000)]), |_| false);
        assert_eq!(lag.age("starts", 49, 9_000), 0);
    }
}
