use serde::{Deserialize, Serialize};

/// How a service reaches Kafka and how much it takes at once.
///
/// Every client of the platform is built from this one structure, so that partitioner, durability and
/// offset handling can never differ between two of them (see [`client`](crate::client)).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaConfig {
    /// `host:port[,host:port…]`.
    pub bootstrap_servers: String,
    /// Put before every topic and consumer group. Empty in production; tests use it to share a broker.
    pub topic_prefix: String,
    /// A consumer that is silent for so long loses its partitions. Milliseconds.
    pub session_timeout_ms: u32,
    /// The most messages handled in one transaction.
    pub max_batch: usize,
    /// How long the producer gathers messages into one request. Milliseconds.
    pub linger_ms: u32,
    /// How long the broker may take to acknowledge before the batch is produced again. Milliseconds.
    pub message_timeout_ms: u32,
    /// How long a batch in flight may finish when its partitions are revoked or the service stops;
    /// below the session timeout, so that the group does not wait for a stuck member. Milliseconds.
    pub drain_timeout_ms: u32,
    /// The process exits when a consumer's loop makes no step for so long. Milliseconds.
    pub progress_timeout_ms: u32,
}

impl KafkaConfig {
    /// The name of `topic` on the broker.
    pub fn topic(&self, topic: &str) -> String {
        format!("{}{topic}", self.topic_prefix)
    }

    /// The name of the consumer group on the broker.
    pub fn group(&self, group: &str) -> String {
        format!("{}{group}", self.topic_prefix)
    }

    /// Adds a sentence to `errors` for every value that cannot work.
    pub fn validate(&self, errors: &mut Vec<String>) {
        if self.bootstrap_servers.trim().is_empty() {
            errors.push("kafka.bootstrap_servers is empty: name at least one broker, host:port".into());
        }
        if !(1..=10_000).contains(&self.max_batch) {
            errors.push(format!("kafka.max_batch is {}: it must be from 1 to 10000", self.max_batch));
        }
        if self.session_timeout_ms < 1_000 {
            errors.push(format!(
                "kafka.session_timeout_ms is {}: below 1000 a short pause loses the partitions",
                self.session_timeout_ms
            ));
        }
        if self.drain_timeout_ms >= self.session_timeout_ms {
            errors.push(format!(
                "kafka.drain_timeout_ms ({}) must be below kafka.session_timeout_ms ({})",
                self.drain_timeout_ms, self.session_timeout_ms
            ));
        }
        if self.message_timeout_ms <= self.linger_ms {
            errors.push(format!(
                "kafka.message_timeout_ms ({}) must be above kafka.linger_ms ({})",
                self.message_timeout_ms, self.linger_ms
            ));
        }
        if self.progress_timeout_ms < 5_000 {
            errors.push(format!("kafka.progress_timeout_ms is {}: it must be at least 5000", self.progress_timeout_ms));
        }
    }
}

impl Default for KafkaConfig {
    fn default() -> Self {
        KafkaConfig {
            bootstrap_servers: "127.0.0.1:9092".into(),
            topic_prefix: String::new(),
            session_timeout_ms: 6_000,
            max_batch: 500,
            linger_ms: 1,
            message_timeout_ms: 10_000,
            drain_timeout_ms: 4_000,
            progress_timeout_ms: 60_000,
        }
    }
}
