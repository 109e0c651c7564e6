use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use rdkafka::Offset;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaResult;

use super::Timers;
use super::batch::UNACKNOWLEDGED;
use super::context::TopicPartition;
use super::run::{Loop, listed};
use super::wait::WaitKind;
use crate::{BatchHandler, HandlerError, failpoint};

const BROKER_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a barrier that is not reached looks whether what it waits for is still there.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Timers that were due at `cutoff` wait here until every answer that was in Kafka by then is processed:
/// otherwise a consumer that comes back from an outage would take its own backlog for silence.
pub(super) struct Barrier {
    cutoff: DateTime<Utc>,
    partitions: Vec<i32>,
    /// Where each answer topic ended after the timers were due.
    ends: HashMap<TopicPartition, End>,
    looked: Instant,
}

struct End {
    end: i64,
    /// Nothing before it will be read: it was committed before the assignment, or is removed by retention.
    first: i64,
}

impl<H: BatchHandler> Loop<H> {
    /// One look at the timers: finds due ones, waits behind the barrier, or fires them.
    pub(super) fn run_timers(&mut self, timers: &Arc<dyn Timers>) {
        if self.barrier.is_none() {
            self.barrier = self.find_due(timers);
        }
        let Some(mut barrier) = self.barrier.take() else { return };
        if self.is_reached(&mut barrier) {
            self.fire(timers, barrier);
        } else {
            self.barrier = Some(barrier);
        }
    }

    fn find_due(&mut self, timers: &Arc<dyn Timers>) -> Option<Barrier> {
        let partitions = self.shared.partitions();
        if partitions.is_empty() {
            return None;
        }
        let timers = timers.clone();
        let due = match self.drive(HashMap::new(), async move |_| timers.due(&partitions).await)? {
            Ok(due) => due,
            Err(error) => {
                tracing::warn!(consumer.group = self.shared.group, error = %source_of(&error), "timers cannot be read; they are asked again");
                return None;
            }
        };
        if due.partitions.is_empty() {
            return None;
        }
        match self.ends(&due.partitions) {
            Ok(ends) => Some(Barrier { cutoff: due.now, partitions: due.partitions, ends, looked: Instant::now() }),
            Err(error) => {
                tracing::debug!(consumer.group = self.shared.group, %error, "end offsets are unknown: timers wait");
                None
            }
        }
    }

    /// The end of every answer topic in `partitions`. Deferred topics start sagas and answer nothing.
    fn ends(&self, partitions: &[i32]) -> KafkaResult<HashMap<TopicPartition, End>> {
        let mut owned = self.shared.owned();
        owned.retain(|(topic, partition)| partitions.contains(partition) && !self.deferred.contains(topic));
        let unread: Vec<TopicPartition> =
            owned.iter().filter(|partition| self.shared.processed(partition).is_none()).cloned().collect();
        let committed = if unread.is_empty() {
            HashMap::new()
        } else {
            self.consumer.committed_offsets(listed(&unread), BROKER_TIMEOUT)?.to_topic_map()
        };
        let mut ends = HashMap::with_capacity(owned.len());
        for partition in owned {
            let (low, end) = self.observer.fetch_watermarks(&partition.0, partition.1, BROKER_TIMEOUT)?;
            let first = match committed.get(&partition) {
                // What was committed may be gone by retention; reading then goes on at the first that is left.
                Some(Offset::Offset(committed)) => low.max(*committed),
                _ => low,
            };
            ends.insert(partition, End { end, first });
        }
        Ok(ends)
    }

    fn is_reached(&self, barrier: &mut Barrier) -> bool {
        let shared = &self.shared;
        barrier
            .ends
            .retain(|partition, End { end, first }| shared.processed(partition).unwrap_or_default().max(*first) < *end);
        if !barrier.ends.is_empty() && barrier.looked.elapsed() >= LOOK_AGAIN {
            barrier.looked = Instant::now();
            for ((topic, partition), end) in &mut barrier.ends {
                if let Ok((low, _)) = self.observer.fetch_watermarks(topic, *partition, BROKER_TIMEOUT) {
                    end.first = end.first.max(low);
                }
            }
        }
        barrier.ends.is_empty()
    }

    /// Commit, publish, settle: the rows stay due until everything is acknowledged, so that a crash between
    /// any two fires the same messages again.
    fn fire(&mut self, timers: &Arc<dyn Timers>, barrier: Barrier) {
        let (timers, batches) = (timers.clone(), self.batches.clone());
        let outcome = self.drive(HashMap::new(), async move |cancel| -> Result<(), HandlerError> {
            loop {
                batches.progress.step();
                failpoint::hit("timer-before-commit", batches.group);
                let fired = timers.fire(&barrier.partitions, barrier.cutoff).await?;
                failpoint::hit("timer-after-commit", batches.group);
                let publish = batches.producer.publish_passing("timer-after-acks", &fired.messages, &cancel);
                let published = batches.while_making_progress(WaitKind::Broker, UNACKNOWLEDGED, &cancel, publish).await;
                if published.is_err() {
                    return Ok(());
                }
                failpoint::hit("timer-before-settle", batches.group);
                timers.settle(&fired.receipts).await?;
                if !fired.more || cancel.is_cancelled() {
                    return Ok(());
                }
            }
        });
        if let Some(Err(error)) = outcome {
            tracing::warn!(consumer.group = self.shared.group, error = %source_of(&error), "timers did not fire; they are still due");
        }
    }
}

fn source_of(error: &HandlerError) -> String {
    let (HandlerError::Retry(source) | HandlerError::Poison(source)) = error;
    format!("{error}: {source}")
}
