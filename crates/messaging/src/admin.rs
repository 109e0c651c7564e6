//! What provisioning, audits and tests do to a broker from outside the consuming loop.

mod observer;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::sync::mpsc;

use crate::client::ClientError;
use crate::{KafkaConfig, Record, client};

pub use observer::Observer;

const TIMEOUT: Duration = Duration::from_secs(15);

/// Messages that are read before they are taken.
const READ_AHEAD: usize = 256;

/// A topic to be declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Full name on the broker.
    pub name: String,
    /// Number of partitions.
    pub partitions: i32,
    /// Copies of each partition.
    pub replication: i32,
    /// Topic configuration: `retention.ms`, `cleanup.policy`, …
    pub config: BTreeMap<String, String>,
}

/// An administrative request failed.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The client could not be made, or the broker did not answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The broker refused to act on one topic.
    #[error("the broker refused {action} of {topic}: {code}")]
    Topic {
        /// `creation` or `deletion`.
        action: &'static str,
        /// Full name.
        topic: String,
        /// The broker's reason.
        code: RDKafkaErrorCode,
    },
    /// Reading did not reach the end.
    #[error("{topic} gave nothing for {seconds} s: {missing} messages are missing")]
    Incomplete {
        /// Full name.
        topic: String,
        /// How long nothing came.
        seconds: u64,
        /// How many messages were not seen.
        missing: i64,
    },
    /// The thread of a blocking request died.
    #[error("an administrative request was interrupted")]
    Interrupted(#[from] tokio::task::JoinError),
}

fn failed(action: impl Into<String>) -> impl FnOnce(KafkaError) -> AdminError {
    let action = action.into();
    move |source| ClientError::new(action, source).into()
}

fn config(bootstrap: &str) -> ClientConfig {
    let kafka = KafkaConfig { bootstrap_servers: bootstrap.to_owned(), ..KafkaConfig::default() };
    client::base(&kafka, "admin")
}

fn admin(bootstrap: &str) -> Result<AdminClient<DefaultClientContext>, AdminError> {
    config(bootstrap).create().map_err(failed("create the admin client"))
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(TIMEOUT)).operation_timeout(Some(TIMEOUT))
}

/// Creates the topics that are missing; those that exist stay as they are. Returns when the broker knows them.
///
/// # Errors
/// When the broker does not answer or refuses one.
pub async fn create_topics(bootstrap: &str, topics: &[TopicSpec]) -> Result<(), AdminError> {
    let new: Vec<NewTopic<'_>> = topics
        .iter()
        .map(|topic| {
            let mut new = NewTopic::new(&topic.name, topic.partitions, TopicReplication::Fixed(topic.replication));
            for (key, value) in &topic.config {
                new = new.set(key, value);
            }
            new
        })
        .collect();
    let results = admin(bootstrap)?.create_topics(&new, &options()).await.map_err(failed("create topics"))?;
    accept(results, "creation", RDKafkaErrorCode::TopicAlreadyExists)
}

/// Deletes topics; those that don't exist are no error.
///
/// # Errors
/// When the broker does not answer or refuses one.
pub async fn delete_topics(bootstrap: &str, topics: &[&str]) -> Result<(), AdminError> {
    let results = admin(bootstrap)?.delete_topics(topics, &options()).await.map_err(failed("delete topics"))?;
    accept(results, "deletion", RDKafkaErrorCode::UnknownTopicOrPartition)
}

/// Deletes the records of one partition of `topic` (full name) before `offset`, as retention does.
///
/// # Errors
/// When the broker does not answer or refuses.
pub async fn delete_records(bootstrap: &str, topic: &str, partition: i32, offset: i64) -> Result<(), AdminError> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(offset)).map_err(failed("list offsets"))?;
    let action = format!("delete records of {topic}");
    let deleted = admin(bootstrap)?.delete_records(&list, &options()).await.map_err(failed(action.clone()))?;
    deleted.elements().iter().try_for_each(|element| element.error().map_err(failed(action.clone())))
}

fn accept(
    results: Vec<Result<String, (String, RDKafkaErrorCode)>>,
    action: &'static str,
    tolerated: RDKafkaErrorCode,
) -> Result<(), AdminError> {
    for result in results {
        if let Err((topic, code)) = result
            && code != tolerated
        {
            return Err(AdminError::Topic { action, topic, code });
        }
    }
    Ok(())
}

/// All topics with their number of partitions.
///
/// # Errors
/// When the broker does not answer.
pub async fn list_topics(bootstrap: &str) -> Result<BTreeMap<String, usize>, AdminError> {
    blocking(bootstrap, |bootstrap| {
        let client = reader(&bootstrap)?;
        let metadata = client.fetch_metadata(None, TIMEOUT).map_err(failed("list topics"))?;
        Ok(metadata.topics().iter().map(|topic| (topic.name().to_owned(), topic.partitions().len())).collect())
    })
    .await
}

/// The first and the next offset of each partition of `topic` (full name).
///
/// # Errors
/// When the broker does not answer or the topic does not exist.
pub async fn offsets(bootstrap: &str, topic: &str) -> Result<Vec<(i64, i64)>, AdminError> {
    let topic = topic.to_owned();
    blocking(bootstrap, move |bootstrap| watermarks(&reader(&bootstrap)?, &topic)).await
}

/// Every message of `topic` (full name) from its start to where it ended at the call.
///
/// # Errors
/// When the broker does not answer, or gives nothing more for a minute.
pub async fn read_topic(bootstrap: &str, topic: &str) -> Result<Vec<Record>, AdminError> {
    let topic = topic.to_owned();
    blocking(bootstrap, move |bootstrap| {
        let client = reader(&bootstrap)?;
        let ends = watermarks(&client, &topic)?;
        let mut records = Vec::new();
        read_to(&client, &topic, &[], &ends, |record| {
            records.push(record);
            true
        })?;
        Ok(records)
    })
    .await
}

/// Messages as they are read.
#[derive(Debug)]
pub struct Reading {
    /// The first and the next offset of each partition when reading began: it ends there.
    pub ends: Vec<(i64, i64)>,
    /// In the order of each partition; closed at the end, or after an error.
    pub records: mpsc::Receiver<Result<Record, AdminError>>,
}

/// Reads `topic` (full name) from the offsets `from`, one for each partition (without it, from the first that is left),
/// to where it ends at the call. Few messages at a time are in memory.
///
/// # Errors
/// When the broker does not answer or the topic does not exist; later ones are among the records.
pub async fn read_from(bootstrap: &str, topic: &str, from: &[i64]) -> Result<Reading, AdminError> {
    let (name, from) = (topic.to_owned(), from.to_vec());
    let (client, ends) = blocking(bootstrap, move |bootstrap| {
        let client = reader(&bootstrap)?;
        let ends = watermarks(&client, &name)?;
        Ok((client, ends))
    })
    .await?;
    let (sender, records) = mpsc::channel(READ_AHEAD);
    let (topic, until) = (topic.to_owned(), ends.clone());
    tokio::task::spawn_blocking(move || {
        let read = read_to(&client, &topic, &from, &until, |record| sender.blocking_send(Ok(record)).is_ok());
        // Whoever has gone wants to know of no error either.
        if let Err(error) = read {
            let _ = sender.blocking_send(Err(error));
        }
    });
    Ok(Reading { ends, records })
}

/// Sends key, value and headers of `records` to `topic` (full name) as they are: a dead letter again, or in a test bytes
/// that no client of the platform would send. Returns when the broker has all of them; it chooses the partitions.
///
/// # Errors
/// When the broker does not take one of them; others may be on the topic then.
pub async fn produce(bootstrap: &str, topic: &str, records: &[Record]) -> Result<(), AdminError> {
    let producer: FutureProducer = config(bootstrap).create().map_err(failed("create a producer"))?;
    for record in records {
        let mut message = FutureRecord::<[u8], [u8]>::to(topic).headers(record.wire_headers());
        message.key = record.key.as_deref();
        message.payload = record.payload.as_deref();
        let sent = producer.send(message, Timeout::After(TIMEOUT)).await;
        sent.map_err(|(source, _)| failed(format!("produce to {topic}"))(source))?;
    }
    Ok(())
}

/// The committed offset of `group` (full name) in each partition of `topics` that has one.
///
/// # Errors
/// When the broker does not answer.
pub async fn group_offsets(
    bootstrap: &str,
    group: &str,
    topics: &[String],
) -> Result<BTreeMap<(String, i32), i64>, AdminError> {
    let (group, topics) = (group.to_owned(), topics.to_vec());
    blocking(bootstrap, move |bootstrap| {
        let client = member(&bootstrap, &group)?;
        let list = all_partitions(&client, &topics)?;
        let committed = client.committed_offsets(list, TIMEOUT).map_err(failed(format!("read offsets of {group}")))?;
        let offset = |offset| if let Offset::Offset(offset) = offset { Some(offset) } else { None };
        Ok(committed.to_topic_map().into_iter().filter_map(|(key, value)| Some((key, offset(value)?))).collect())
    })
    .await
}

/// Sets `group` (full name), which must have no running member, back to the first offset of every partition.
///
/// # Errors
/// When the broker does not answer or the group is in use.
pub async fn rewind_group(bootstrap: &str, group: &str, topics: &[String]) -> Result<(), AdminError> {
    let (group, topics) = (group.to_owned(), topics.to_vec());
    blocking(bootstrap, move |bootstrap| {
        let client = member(&bootstrap, &group)?;
        let mut list = TopicPartitionList::new();
        for topic in &topics {
            for (partition, (low, _)) in (0..).zip(watermarks(&client, topic)?) {
                list.add_partition_offset(topic, partition, Offset::Offset(low)).map_err(failed("list offsets"))?;
            }
        }
        client.commit(&list, CommitMode::Sync).map_err(failed(format!("rewind {group}")))
    })
    .await
}

/// A group that would go on behind the end of a partition: the topic was made again, or cut off at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stranded {
    /// Full name of the group.
    pub group: String,
    /// Full name of the topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The group's committed offset.
    pub committed: i64,
    /// The offset after the partition's last message, which is below.
    pub end: i64,
    /// Whether the group has members: they have noticed, and read from the beginning. Only a group without members
    /// can be rewound.
    pub in_use: bool,
}

/// Every partition of `topics` (full names) in which a group has committed an offset behind the end. Should more arrive
/// there than that before the group reads on, it would pass over all of it.
///
/// # Errors
/// When the broker does not answer or a topic does not exist.
pub async fn stranded_groups(bootstrap: &str, topics: &[String]) -> Result<Vec<Stranded>, AdminError> {
    let topics = topics.to_vec();
    blocking(bootstrap, move |bootstrap| {
        let client = reader(&bootstrap)?;
        let groups = client.fetch_group_list(None, TIMEOUT).map_err(failed("list groups"))?;
        let mut ends = BTreeMap::new();
        for topic in &topics {
            for (partition, (_, end)) in (0..).zip(watermarks(&client, topic)?) {
                ends.insert((topic.clone(), partition), end);
            }
        }
        let mut stranded = Vec::new();
        for group in groups.groups().iter().filter(|group| group.protocol_type() != "connect") {
            let name = group.name().to_owned();
            let member = member(&bootstrap, &name)?;
            let list = all_partitions(&member, &topics)?;
            let committed =
                member.committed_offsets(list, TIMEOUT).map_err(failed(format!("read offsets of {name}")))?;
            for ((topic, partition), offset) in committed.to_topic_map() {
                let (Offset::Offset(committed), Some(end)) = (offset, ends.get(&(topic.clone(), partition))) else {
                    continue;
                };
                if committed > *end {
                    let (group, end, in_use) = (name.clone(), *end, !group.members().is_empty());
                    stranded.push(Stranded { group, topic, partition, committed, end, in_use });
                }
            }
        }
        stranded.sort_by(|a, b| (&a.group, &a.topic, a.partition).cmp(&(&b.group, &b.topic, b.partition)));
        Ok(stranded)
    })
    .await
}

async fn blocking<T: Send + 'static>(
    bootstrap: &str,
    request: impl FnOnce(String) -> Result<T, AdminError> + Send + 'static,
) -> Result<T, AdminError> {
    let bootstrap = bootstrap.to_owned();
    tokio::task::spawn_blocking(move || request(bootstrap)).await?
}

fn reader(bootstrap: &str) -> Result<BaseConsumer, AdminError> {
    member(bootstrap, "chaos-symphony-reader")
}

fn member(bootstrap: &str, group: &str) -> Result<BaseConsumer, AdminError> {
    config(bootstrap)
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("enable.partition.eof", "true")
        // What is read ahead is held in memory.
        .set("queued.max.messages.kbytes", "4096")
        .create()
        .map_err(failed("create a reader"))
}

fn all_partitions(client: &BaseConsumer, topics: &[String]) -> Result<TopicPartitionList, AdminError> {
    let mut list = TopicPartitionList::new();
    for topic in topics {
        for partition in 0..partitions(client, topic)? {
            list.add_partition(topic, partition);
        }
    }
    Ok(list)
}

fn partitions(client: &BaseConsumer, topic: &str) -> Result<i32, AdminError> {
    let metadata = client.fetch_metadata(Some(topic), TIMEOUT).map_err(failed(format!("look up {topic}")))?;
    let count = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
    Ok(i32::try_from(count).unwrap_or(i32::MAX))
}

fn watermarks(client: &BaseConsumer, topic: &str) -> Result<Vec<(i64, i64)>, AdminError> {
    (0..partitions(client, topic)?).map(|partition| ends_of(client, topic, partition)).collect()
}

/// The first and the next offset of a partition. For a moment after a broker's start nobody leads it: that is waited for.
fn ends_of(client: &BaseConsumer, topic: &str, partition: i32) -> Result<(i64, i64), AdminError> {
    const PAUSE: Duration = Duration::from_millis(100);
    let began = Instant::now();
    loop {
        match client.fetch_watermarks(topic, partition, TIMEOUT) {
            Err(error) if is_leaderless(&error) && began.elapsed() < TIMEOUT => {
                std::thread::sleep(PAUSE);
                // Whom to ask is known from the metadata.
                client.fetch_metadata(Some(topic), TIMEOUT).map_err(failed(format!("find the leaders of {topic}")))?;
            }
            ends => return ends.map_err(failed(format!("read the ends of {topic}"))),
        }
    }
}

fn is_leaderless(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{LeaderNotAvailable, NotLeaderForPartition};
    matches!(error.rdkafka_error_code(), Some(LeaderNotAvailable | NotLeaderForPartition))
}

/// Gives `take` every message from the offsets `from` (by partition, else from the first) to `ends`, until it wants no
/// more.
fn read_to(
    client: &BaseConsumer,
    topic: &str,
    from: &[i64],
    ends: &[(i64, i64)],
    mut take: impl FnMut(Record) -> bool,
) -> Result<(), AdminError> {
    const LIMIT: Duration = Duration::from_secs(60);
    let mut list = TopicPartitionList::new();
    let mut missing: Vec<i64> = Vec::with_capacity(ends.len());
    for (partition, (low, high)) in (0..).zip(ends) {
        let start = from.get(missing.len()).map_or(*low, |from| *low.max(from));
        missing.push(high - start);
        if start < *high {
            list.add_partition_offset(topic, partition, Offset::Offset(start)).map_err(failed("list offsets"))?;
        }
    }
    client.assign(&list).map_err(failed(format!("read {topic}")))?;
    let mut last = Instant::now();
    // Counted by offset, not by message: compaction leaves gaps, and so do the markers of transactions. At the end nothing
    // is missing, whatever the last message was.
    while missing.iter().any(|missing| *missing > 0) {
        if last.elapsed() > LIMIT {
            let missing = missing.iter().filter(|missing| **missing > 0).sum();
            return Err(AdminError::Incomplete { topic: topic.to_owned(), seconds: LIMIT.as_secs(), missing });
        }
        let Some(message) = client.poll(Duration::from_millis(200)) else { continue };
        if let Err(KafkaError::PartitionEOF(partition)) = message {
            missing[usize::try_from(partition).unwrap_or_default()] = 0;
            continue;
        }
        let message = message.map_err(failed(format!("read {topic}")))?;
        last = Instant::now();
        let partition = usize::try_from(message.partition()).unwrap_or_default();
        let (_, high) = ends[partition];
        missing[partition] = high - (message.offset() + 1);
        if message.offset() < high && !take(Record::copy_of(&message, "")) {
            return Ok(());
        }
    }
    Ok(())
}
