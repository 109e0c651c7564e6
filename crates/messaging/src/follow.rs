//! Shared state on compacted topics: the last record of a key is its value, a tombstone removes it.

use std::collections::HashSet;
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::client::{self, ClientError};
use crate::{KafkaConfig, Record};

/// How long a poll waits; bounds how late a stop is noticed.
const POLL: Duration = Duration::from_millis(250);
/// Between two looks for a topic that does not exist yet, or a broker that is away.
const PATIENCE: Duration = Duration::from_secs(1);

/// A topic that is being followed.
pub struct Following {
    /// Whether everything that was on the topic at the start has been applied.
    pub caught_up: watch::Receiver<bool>,
    /// Ends when the token is cancelled.
    pub stopped: tokio::task::JoinHandle<()>,
}

/// Reads the whole of `topic`, and then whatever comes, in every process alike: no group, no offsets. `apply` gets each
/// record in the order of its partition. Must be called inside a runtime.
///
/// # Errors
/// When librdkafka refuses the configuration; the network comes later.
pub fn follow(
    config: &KafkaConfig,
    topic: &str,
    stop: CancellationToken,
    apply: impl FnMut(Record) + Send + 'static,
) -> Result<Following, ClientError> {
    let mut client = client::base(config, "follower");
    // Nothing is committed, but the client wants a group to be named.
    client
        .set("group.id", config.group("follower"))
        .set("enable.auto.commit", "false")
        .set("fetch.wait.max.ms", "250")
        // Where reading goes on when what was to come next is removed. Skipping to the end would lose what is between.
        .set("auto.offset.reset", "earliest")
        .set("enable.partition.eof", "true");
    let consumer =
        client.create_with_context(Reader).map_err(|source| ClientError::new(format!("follow {topic}"), source))?;
    let (sender, caught_up) = watch::channel(false);
    let follower = Follower {
        consumer,
        topic: config.topic(topic),
        prefix: config.topic_prefix.clone(),
        stop,
        caught_up: sender,
        unread: HashSet::new(),
    };
    Ok(Following { caught_up, stopped: tokio::task::spawn_blocking(move || follower.run(apply)) })
}

/// Says what the client has to say, but not each time that it has read all there is, which it takes for an error.
struct Reader;

impl ClientContext for Reader {
    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF) {
            tracing::warn!(%error, reason, "the Kafka client of a follower has an error");
        }
    }
}

impl ConsumerContext for Reader {}

struct Follower {
    consumer: BaseConsumer<Reader>,
    topic: String,
    prefix: String,
    stop: CancellationToken,
    caught_up: watch::Sender<bool>,
    /// Partitions that have not been read to their end yet.
    unread: HashSet<i32>,
}

impl Follower {
    fn run(mut self, mut apply: impl FnMut(Record)) {
        let mut said = false;
        while let Err(error) = self.begin() {
            if self.stop.is_cancelled() {
                return;
            }
            if !said {
                tracing::warn!(topic = self.topic, %error, "a topic of shared state cannot be read yet; it is tried again");
                said = true;
            }
            std::thread::sleep(PATIENCE);
        }
        while !self.stop.is_cancelled() {
            match self.consumer.poll(POLL) {
                None => {}
                Some(Ok(message)) => apply(Record::copy_of(&message, &self.prefix)),
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    self.unread.remove(&partition);
                }
                // It reconnects by itself; a broker that is away leaves the state as it is.
                Some(Err(error)) => tracing::debug!(topic = self.topic, %error, "a poll of shared state failed"),
            }
            if self.unread.is_empty() {
                self.caught_up.send_if_modified(|done| !std::mem::replace(done, true));
            }
        }
    }

    /// Learns the partitions and starts at their beginning.
    fn begin(&mut self) -> Result<(), KafkaError> {
        let metadata = self.consumer.fetch_metadata(Some(&self.topic), PATIENCE)?;
        let topic = metadata.topics().first();
        if let Some(error) = topic.and_then(|topic| topic.error()) {
            return Err(KafkaError::MetadataFetch(error.into()));
        }
        let mut assignment = TopicPartitionList::new();
        for partition in topic.map_or(&[][..], |topic| topic.partitions()) {
            assignment.add_partition_offset(&self.topic, partition.id(), Offset::Beginning)?;
            self.unread.insert(partition.id());
        }
        self.consumer.assign(&assignment)
    }
}
