use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;

use crate::KafkaConfig;

/// A Kafka client could not be made or configured.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action}")]
pub struct ClientError {
    /// What was attempted: `create the producer`.
    pub action: String,
    /// What librdkafka said.
    #[source]
    pub source: KafkaError,
}

impl ClientError {
    pub(crate) fn new(action: impl Into<String>, source: KafkaError) -> Self {
        ClientError { action: action.into(), source }
    }
}

/// What every client shares.
pub(crate) fn base(config: &KafkaConfig, client_id: &str) -> ClientConfig {
    let mut client = ClientConfig::new();
    client
        .set("bootstrap.servers", &config.bootstrap_servers)
        .set("client.id", client_id)
        // Reconnect quickly: a broker restart is to be noticed within a second, not after the default 10 s.
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "1000")
        .set("socket.keepalive.enable", "true")
        // A topic that is made while clients run is seen within seconds.
        .set("topic.metadata.refresh.interval.ms", "10000")
        .set("topic.metadata.propagation.max.ms", "5000")
        .set("allow.auto.create.topics", "false");
    client
}

pub(crate) fn producer(config: &KafkaConfig, client_id: &str) -> ClientConfig {
    let mut client = base(config, client_id);
    client
        .set("acks", "all")
        .set("enable.idempotence", "true")
        // The Java clients' partitioner (Debezium's too): one key, one partition number in every topic.
        .set("partitioner", "murmur2_random")
        .set("linger.ms", config.linger_ms.to_string())
        .set("message.timeout.ms", config.message_timeout_ms.to_string())
        .set("batch.size", "1000000")
        // A dead letter carries whatever arrived, plus its cause. What arrived compressed can be many times
        // the size that a topic allows, so letters are compressed too; the broker checks the compressed size
        // (2 MB on dead letter topics), librdkafka the size before.
        .set("compression.type", "lz4")
        .set("message.max.bytes", "100000000")
        .set("queue.buffering.max.messages", "200000");
    client
}

pub(crate) fn consumer(config: &KafkaConfig, group: &str) -> ClientConfig {
    let mut client = base(config, group);
    client
        .set("group.id", config.group(group))
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest")
        .set("enable.partition.eof", "false")
        // `range` gives one member the same partition numbers of every topic: one replica owns a saga.
        .set("partition.assignment.strategy", "range")
        .set("session.timeout.ms", config.session_timeout_ms.to_string())
        .set("heartbeat.interval.ms", (config.session_timeout_ms / 6).max(100).to_string())
        .set("max.poll.interval.ms", "300000")
        // The loop waits for some commits. By the default it would do so for a minute, as long as its watchdog waits for
        // it. Fetching adds its own wait; joining and syncing a group have timeouts of their own.
        .set("socket.timeout.ms", "10000")
        .set("queued.max.messages.kbytes", "16384")
        // After the local queue was full (or an empty answer) the default backoff is a whole second.
        .set("fetch.queue.backoff.ms", "5")
        .set("fetch.error.backoff.ms", "100");
    client
}
