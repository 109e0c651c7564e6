//! A consumer with a scripted handler on topics of its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use messaging::{
    BatchHandler, CancellationToken, Consumer, ConsumerHandle, Delivery, Envelope, Gate, HandlerError, Outgoing,
    Poison, Producer, Record, Timers, async_trait,
};
use testkit::{Env, wait_until};
use tokio::sync::Mutex;
use tokio_util::sync::DropGuard;
use uuid::Uuid;

pub const COMMANDS: &str = "test.commands";
pub const STARTS: &str = "test.starts";
pub const ANSWERS: &str = "test.answers";
pub const TYPE: &str = "com.chaossymphony.test.v1";
pub const LIMIT: Duration = Duration::from_secs(30);

/// Answers every message, and misbehaves as its message or the test asks: the value `"poison"` cannot be
/// applied, `"panic"` panics.
#[derive(Default)]
pub struct Script {
    /// Values handled to the end, in order.
    pub handled: Mutex<Vec<(String, String)>>,
    /// While set, a dependency is down.
    pub down: AtomicBool,
    /// The sizes of the batches that were tried with a poison in them, in order.
    pub tries_with_poison: Mutex<Vec<usize>>,
    /// How long each batch takes, in milliseconds.
    pub slow: std::sync::atomic::AtomicU64,
}

impl Script {
    pub async fn values(&self) -> Vec<String> {
        self.handled.lock().await.iter().map(|(_, value)| value.clone()).collect()
    }
}

#[async_trait]
impl BatchHandler for Script {
    type Message = String;

    fn decode(&self, record: &Record, _: &Envelope) -> Result<String, Poison> {
        record.json()
    }

    async fn handle(&self, batch: &[Delivery<String>]) -> Result<Vec<Outgoing>, HandlerError> {
        // The handler is slow on purpose: what the runtime does meanwhile is what is tested.
        tokio::time::sleep(Duration::from_millis(self.slow.load(Ordering::Relaxed))).await;
        if self.down.load(Ordering::Relaxed) {
            return Err(HandlerError::Retry("the database is down".into()));
        }
        if batch.iter().any(|delivery| delivery.message == "poison") {
            self.tries_with_poison.lock().await.push(batch.len());
            return Err(HandlerError::poison("test-poison", "this can never work"));
        }
        assert!(batch.iter().all(|delivery| delivery.message != "panic"), "the handler was told to panic");
        let mut handled = self.handled.lock().await;
        handled.extend(batch.iter().map(|delivery| (delivery.envelope.subject.clone(), delivery.message.clone())));
        Ok(batch
            .iter()
            .map(|delivery| Outgoing {
                topic: ANSWERS.into(),
                causation_id: Some(delivery.envelope.id),
                traceparent: delivery.trace.clone(),
                ..message(ANSWERS, &delivery.envelope.subject, &delivery.message)
            })
            .collect())
    }
}

pub struct Harness {
    pub env: Env,
    pub script: Arc<Script>,
    producer: Producer,
    ids: std::sync::atomic::AtomicU32,
}

pub struct Member {
    pub handle: ConsumerHandle,
    /// Also of a test that fails: whoever is left reading would keep its runtime from ending.
    shutdown: DropGuard,
}

impl Member {
    /// Stops it and waits until it left its group.
    pub async fn stop(self) {
        drop(self.shutdown);
        self.handle.stopped.await.expect("the loop ends without a panic");
    }
}

impl Harness {
    pub async fn new() -> Self {
        Self::with_commands_on(2).await
    }

    /// The commands on so many partitions, everything else on two. On one partition what was sent before the member
    /// joins is one batch.
    pub async fn with_commands_on(partitions: i32) -> Self {
        let env = Env::bare("messaging");
        let letters = [COMMANDS, STARTS].map(messaging::dead_letter::topic_of);
        env.create_topics(&[COMMANDS], partitions).await;
        env.create_topics(&[STARTS, ANSWERS, &letters[0], &letters[1]], 2).await;
        let producer = Producer::new(&env.kafka(), "test").expect("a producer");
        Harness { env, script: Arc::default(), producer, ids: Default::default() }
    }

    pub fn join(&self) -> Member {
        self.join_with(|consumer| consumer)
    }

    pub fn join_with(&self, options: impl FnOnce(Consumer<Script>) -> Consumer<Script>) -> Member {
        let shutdown = CancellationToken::new();
        let consumer = Consumer::new("test", self.script.clone()).topic(COMMANDS, TYPE).deferred_topic(STARTS, TYPE);
        let handle = options(consumer)
            .spawn(&self.env.kafka(), self.producer.clone(), shutdown.clone())
            .expect("the consumer starts");
        Member { handle, shutdown: shutdown.drop_guard() }
    }

    /// Publishes one message for each `(key, value)`, in their order.
    pub async fn send(&self, topic: &str, messages: &[(&str, &str)]) {
        let messages: Vec<Outgoing> = messages.iter().map(|(key, value)| message(topic, key, value)).collect();
        self.env.send_all(&messages).await;
    }

    /// A key that no other message of this test has.
    pub fn key(&self) -> String {
        format!("key-{}", self.ids.fetch_add(1, Ordering::Relaxed))
    }

    pub async fn handled(&self, count: usize) {
        wait_until(&format!("{count} messages are handled"), LIMIT, async || {
            self.script.handled.lock().await.len() >= count
        })
        .await;
    }

    /// Committed offsets of the group summed over the partitions of `topic`.
    pub async fn committed(&self, topic: &str) -> i64 {
        let kafka = self.env.kafka();
        messaging::admin::group_offsets(&kafka.bootstrap_servers, &kafka.group("test"), &[kafka.topic(topic)])
            .await
            .expect("the group's offsets")
            .values()
            .sum()
    }

    pub async fn letters(&self) -> Vec<Record> {
        self.env.read_topic(&messaging::dead_letter::topic_of(COMMANDS)).await
    }
}

pub fn message(topic: &str, key: &str, value: &str) -> Outgoing {
    Outgoing {
        topic: topic.into(),
        key: key.into(),
        id: Uuid::new_v4(),
        event_type: TYPE.into(),
        source: "/test".into(),
        subject: key.into(),
        time: chrono::Utc::now(),
        saga_id: None,
        definition: None,
        step: None,
        causation_id: None,
        traceparent: None,
        payload: serde_json::to_vec(value).expect("a string is JSON"),
    }
}

/// A gate that a test opens and closes.
#[derive(Default)]
pub struct Valve(pub AtomicBool);

#[async_trait]
impl Gate for Valve {
    async fn pause_deferred(&self, _: &[i32]) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

pub fn headers(record: &Record) -> HashMap<&str, &str> {
    record.headers.iter().filter_map(|(name, _)| Some((name.as_str(), record.header(name)?))).collect()
}

pub type SharedTimers = Arc<dyn Timers>;
