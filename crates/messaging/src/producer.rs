use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::client::{self, ClientError};
use crate::{KafkaConfig, Layers, Outgoing, Record, dead_letter, failpoint, metrics, watchdog};

/// The failpoint of whoever answers what it has read.
const AFTER_ACKS: &str = "after-acks";

/// Publishing stopped before every acknowledgement was there: the partitions were revoked or the service
/// stops. What was sent may still arrive; whoever owns the partitions next sends it again.
#[derive(Debug, thiserror::Error)]
#[error("publishing was given up before every message was acknowledged")]
pub struct Cancelled;

/// Where the broker put a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Partition, chosen by the key.
    pub partition: i32,
    /// Offset in it.
    pub offset: i64,
}

/// A message was not acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// It is surely on no topic, and sending it again would end the same: the topic does not exist, the message is too
    /// large or not one that the topic takes, or the client itself refuses it.
    #[error("the broker does not take the message")]
    Refused(#[source] KafkaError),
    /// It may be on its topic or not.
    #[error("the broker did not acknowledge the message")]
    Unknown(#[source] KafkaError),
}

/// Publishes batches of messages and waits for every acknowledgement. Cheap to clone; one per process.
#[derive(Clone)]
pub struct Producer {
    inner: Arc<Inner>,
    layers: Layers,
}

struct Inner {
    producer: ThreadedProducer<Acks>,
    client_id: String,
    config: KafkaConfig,
}

/// A message ready for the broker: topic with prefix, key, value and headers as they go on the wire.
pub(crate) struct WireMessage {
    pub(crate) topic: String,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) payload: Option<Vec<u8>>,
    pub(crate) headers: OwnedHeaders,
}

impl WireMessage {
    /// `record` as it is, for the topic that it names.
    pub(crate) fn of(config: &KafkaConfig, record: &Record) -> Self {
        WireMessage {
            topic: config.topic(&record.topic),
            key: record.key.clone(),
            payload: record.payload.clone(),
            headers: record.wire_headers(),
        }
    }
}

/// One batch's acknowledgements. librdkafka calls back once for every message, with success or failure.
struct Batch {
    unanswered: AtomicUsize,
    failed: mpsc::UnboundedSender<KafkaError>,
    all_answered: Notify,
    /// Where the last acknowledged message is: who sends one alone wants to know.
    partition: AtomicI32,
    offset: AtomicI64,
}

impl Batch {
    fn new(messages: usize) -> (Arc<Self>, mpsc::UnboundedReceiver<KafkaError>) {
        let (failed, failures) = mpsc::unbounded_channel();
        let batch = Batch {
            unanswered: AtomicUsize::new(messages),
            failed,
            all_answered: Notify::new(),
            partition: AtomicI32::new(-1),
            offset: AtomicI64::new(-1),
        };
        (Arc::new(batch), failures)
    }

    fn answered(&self, failure: Option<KafkaError>) {
        if let Some(error) = failure {
            // The receiver lives as long as the batch waits; a late answer of a given-up batch is no loss.
            let _ = self.failed.send(error);
        }
        if self.unanswered.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.all_answered.notify_one();
        }
    }
}

struct Acks {
    client_id: String,
}

impl ClientContext for Acks {
    fn error(&self, error: KafkaError, reason: &str) {
        watchdog::client_error(&self.client_id, &error, reason);
    }
}

impl ProducerContext for Acks {
    type DeliveryOpaque = Arc<Batch>;

    fn delivery(&self, result: &DeliveryResult<'_>, batch: Arc<Batch>) {
        if let Ok(message) = result {
            batch.partition.store(message.partition(), Ordering::Relaxed);
            batch.offset.store(message.offset(), Ordering::Relaxed);
        }
        batch.answered(result.as_ref().err().map(|(error, _)| error.clone()));
    }
}

impl Producer {
    /// A producer of its own thread and connection.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration; no network is touched.
    pub fn new(config: &KafkaConfig, client_id: &str) -> Result<Self, ClientError> {
        let producer = client::producer(config, client_id)
            .create_with_context(Acks { client_id: client_id.to_owned() })
            .map_err(|source| ClientError::new("create the producer", source))?;
        let inner = Inner { producer, client_id: client_id.to_owned(), config: config.clone() };
        Ok(Producer { inner: Arc::new(inner), layers: Layers::default() })
    }

    /// The same producer, whose messages pass `layers`, outermost first.
    #[must_use]
    pub fn with_layers(self, layers: Layers) -> Self {
        Producer { layers, ..self }
    }

    /// Publishes `messages` in their order and returns when the broker has acknowledged every one. While one
    /// is missing the whole batch is produced again, so that the order per key holds.
    ///
    /// # Errors
    /// [`Cancelled`] when `cancel` fires first.
    pub async fn publish(&self, messages: &[Outgoing], cancel: &CancellationToken) -> Result<(), Cancelled> {
        self.publish_passing(AFTER_ACKS, messages, cancel).await
    }

    /// [`publish`](Producer::publish), passing the failpoint `point` at each acknowledgement.
    pub(crate) async fn publish_passing(
        &self,
        point: &'static str,
        messages: &[Outgoing],
        cancel: &CancellationToken,
    ) -> Result<(), Cancelled> {
        if self.layers.is_empty() {
            return self.deliver(point, messages, cancel).await;
        }
        let mut messages = messages.to_vec();
        for layer in self.layers.iter() {
            messages = tokio::select! {
                messages = layer.send(messages) => messages,
                () = cancel.cancelled() => return Err(Cancelled),
            };
        }
        self.deliver(point, &messages, cancel).await
    }

    async fn deliver(
        &self,
        point: &'static str,
        messages: &[Outgoing],
        cancel: &CancellationToken,
    ) -> Result<(), Cancelled> {
        let wire: Vec<WireMessage> = messages
            .iter()
            .map(|message| WireMessage {
                topic: self.inner.config.topic(&message.topic),
                key: Some(message.key.clone().into_bytes()),
                payload: Some(message.payload.clone()),
                headers: message.headers(),
            })
            .collect();
        self.publish_wire(point, &wire, cancel).await?;
        for message in messages {
            metrics::PUBLISHED.with_label_values(&[message.topic.as_str()]).inc();
        }
        Ok(())
    }

    /// Puts records at the end of the topics they came from.
    pub(crate) async fn requeue(&self, records: &[Record], cancel: &CancellationToken) -> Result<(), Cancelled> {
        let wire: Vec<WireMessage> = records.iter().map(|record| WireMessage::of(&self.inner.config, record)).collect();
        self.publish_wire(AFTER_ACKS, &wire, cancel).await
    }

    /// Publishes dead letters. One that its topic refuses as too large is shortened rather than lost.
    pub(crate) async fn publish_letters(
        &self,
        letters: &mut [WireMessage],
        cancel: &CancellationToken,
    ) -> Result<(), Cancelled> {
        // One by one: an error names no message, and letters are rare.
        for letter in letters {
            let (mut backoff, mut cut) = (Backoff::new(), false);
            while let Err(error) = self.publish_once(AFTER_ACKS, std::slice::from_ref(letter), cancel).await? {
                let too_large = error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge);
                if too_large && !cut {
                    tracing::error!(topic = letter.topic, "a dead letter is too large for its topic: it is cut");
                    dead_letter::shorten(letter);
                    cut = true;
                    continue;
                }
                tracing::warn!(topic = letter.topic, %error, "a dead letter was not acknowledged: it is produced again");
                self.pause(&mut backoff, cancel).await?;
            }
        }
        Ok(())
    }

    /// Sends key, value and headers of `record` to its topic, once, as they are; its partition follows from its key.
    /// Returns when the broker has it, after `kafka.message_timeout_ms` at the latest.
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn send(&self, record: &Record) -> Result<Placed, SendError> {
        let message = WireMessage::of(&self.inner.config, record);
        let (batch, mut failures) = Batch::new(1);
        let queued = self.enqueue(&message, &batch).await;
        batch.all_answered.notified().await;
        if let Ok(error) = failures.try_recv() {
            // What the client itself refuses never leaves this process, whatever the reason.
            let refused = !queued || error.rdkafka_error_code().is_some_and(is_refusal);
            return Err(if refused { SendError::Refused(error) } else { SendError::Unknown(error) });
        }
        metrics::PUBLISHED.with_label_values(&[record.topic.as_str()]).inc();
        let (partition, offset) = (batch.partition.load(Ordering::Relaxed), batch.offset.load(Ordering::Relaxed));
        Ok(Placed { partition, offset })
    }

    /// Waits before a batch is produced again.
    async fn pause(&self, backoff: &mut Backoff, cancel: &CancellationToken) -> Result<(), Cancelled> {
        metrics::PUBLISH_RETRIES.with_label_values(&[self.inner.client_id.as_str()]).inc();
        tokio::select! {
            () = cancel.cancelled() => Err(Cancelled),
            () = tokio::time::sleep(backoff.next()) => Ok(()),
        }
    }

    async fn publish_wire(
        &self,
        point: &'static str,
        messages: &[WireMessage],
        cancel: &CancellationToken,
    ) -> Result<(), Cancelled> {
        let mut backoff = Backoff::new();
        let mut reported = false;
        while !messages.is_empty() {
            let Err(error) = self.publish_once(point, messages, cancel).await? else { break };
            if !reported {
                tracing::warn!(client = self.inner.client_id, %error, messages = messages.len(),
                    "a batch was not acknowledged: it is produced again until it is");
                reported = true;
            }
            self.pause(&mut backoff, cancel).await?;
        }
        if reported {
            tracing::info!(client = self.inner.client_id, "the batch is acknowledged");
        }
        Ok(())
    }

    /// One attempt: the inner error is the first failure of the batch.
    async fn publish_once(
        &self,
        point: &'static str,
        messages: &[WireMessage],
        cancel: &CancellationToken,
    ) -> Result<Result<(), KafkaError>, Cancelled> {
        let (batch, mut failures) = Batch::new(messages.len());
        for (before, message) in messages.iter().enumerate() {
            self.enqueue(message, &batch).await;
            // Alone on the wire, so that "after k of n acknowledgements" is exact.
            if failpoint::armed(point) && self.inner.producer.flush(Duration::from_secs(10)).is_ok() {
                failpoint::hit_after(point, &self.inner.client_id, before + 1, messages.len());
            }
        }
        tokio::select! {
            () = batch.all_answered.notified() => {}
            () = cancel.cancelled() => return Err(Cancelled),
        }
        Ok(failures.try_recv().map_or(Ok(()), Err))
    }

    /// False when the client refuses it, which `batch` gets as its answer. While its queue is full this waits.
    async fn enqueue(&self, message: &WireMessage, batch: &Arc<Batch>) -> bool {
        loop {
            let mut record: BaseRecord<'_, [u8], [u8], Arc<Batch>> =
                BaseRecord::with_opaque_to(&message.topic, batch.clone()).headers(message.headers.clone());
            if let Some(key) = &message.key {
                record = record.key(key);
            }
            if let Some(payload) = &message.payload {
                record = record.payload(payload);
            }
            match self.inner.producer.send(record) {
                Ok(()) => return true,
                // The local queue is full: its thread is sending, room comes with the next acknowledgements.
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err((error, _)) => {
                    batch.answered(Some(error));
                    return false;
                }
            }
        }
    }
}

/// Whether the message is surely on no topic.
fn is_refusal(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::InvalidTopic
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::PolicyViolation
            | RDKafkaErrorCode::InvalidMessage
            | RDKafkaErrorCode::InvalidMessageSize
            | RDKafkaErrorCode::InvalidTimestamp
            | RDKafkaErrorCode::InvalidRecord
            | RDKafkaErrorCode::UnknownPartition
    )
}
