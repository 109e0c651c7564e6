use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;
use tracing::Span;

use super::note::Note;
use super::wait::{WaitKind, Waiting, Waits};
use crate::backoff::Backoff;
use crate::dead_letter::{self, Cause};
use crate::producer::{Cancelled, WireMessage};
use crate::watchdog::Progress;
use crate::{
    BatchHandler, BoxError, Delivery, Envelope, HandlerError, KafkaConfig, Layers, Outgoing, Poison, Producer,
    Received, Record, failpoint, layer, metrics, trace,
};

/// Why a consumer that publishes waits.
pub(super) const UNACKNOWLEDGED: &str = "the broker does not acknowledge what is published";
/// How often a message that is alone is tried before it is a dead letter.
const TRIES: u32 = 3;

/// Turns records into effects and acknowledged answers.
pub(super) struct Batches<H> {
    pub(super) group: &'static str,
    pub(super) config: KafkaConfig,
    /// The `ce_type` of each subscribed topic.
    pub(super) event_types: HashMap<String, String>,
    /// Records have any shape, and none is ever given up.
    pub(super) raw: bool,
    pub(super) handler: Arc<H>,
    pub(super) layers: Layers,
    pub(super) producer: Producer,
    pub(super) progress: Progress,
    pub(super) waits: Waits,
}

/// What a batch came to so far.
#[derive(Default)]
struct Outcome {
    answers: Vec<Outgoing>,
    letters: Vec<WireMessage>,
}

impl<H: BatchHandler> Batches<H> {
    /// Handles `records` to the end: when this returns, their effects are committed and everything they
    /// caused is acknowledged, dead letters included.
    pub(super) async fn process(&self, records: Vec<Record>, cancel: &CancellationToken) -> Result<(), Cancelled> {
        metrics::BATCH_MESSAGES.with_label_values(&[self.group]).observe(records.len() as f64);
        let Received { handle: records, requeue } = self.receive(records, cancel).await?;
        let mut outcome = Outcome::default();
        let mut deliveries = Vec::with_capacity(records.len());
        let mut spans = Vec::new();
        for record in &records {
            metrics::CONSUMED.with_label_values(&[self.group, record.topic.as_str()]).inc();
            let decoded = match self.decode(record) {
                Err(poison) if self.raw => self.decode_again(record, &poison, cancel).await?,
                decoded => decoded,
            };
            match decoded {
                Ok((delivery, span)) => {
                    deliveries.push(delivery);
                    spans.push(span);
                }
                Err(poison) => {
                    let error = poison.to_string();
                    let cause = Cause { reason: poison.reason, error, attempts: 1, first_failed_at: Utc::now() };
                    outcome.letters.push(self.bury(record, &cause));
                }
            }
        }
        let started = Instant::now();
        self.apply(&mut deliveries, &records, &mut outcome, cancel).await?;
        metrics::BATCH_SECONDS.with_label_values(&[self.group, "handle"]).observe(started.elapsed().as_secs_f64());
        failpoint::hit("after-commit", self.group);

        let started = Instant::now();
        self.while_making_progress(WaitKind::Broker, UNACKNOWLEDGED, cancel, async {
            self.producer.requeue(&requeue, cancel).await?;
            self.producer.publish_letters(&mut outcome.letters, cancel).await?;
            self.producer.publish(&outcome.answers, cancel).await
        })
        .await?;
        metrics::BATCH_SECONDS.with_label_values(&[self.group, "publish"]).observe(started.elapsed().as_secs_f64());
        drop(spans);
        Ok(())
    }

    /// What the layers make of `records`.
    async fn receive(&self, records: Vec<Record>, cancel: &CancellationToken) -> Result<Received, Cancelled> {
        if self.layers.is_empty() {
            return Ok(records.into());
        }
        let received = layer::receive(&self.layers, self.group, records);
        tokio::select! {
            received = self.while_making_progress(WaitKind::Layer, "a layer holds the batch", cancel, received) => {
                Ok(received)
            }
            () = cancel.cancelled() => Err(Cancelled),
        }
    }

    /// Publishing waits for the broker as long as it takes. That is no hang, since librdkafka always answers,
    /// but it is to be seen: after a few seconds the consumer says that it waits, and for what.
    pub(super) async fn while_making_progress<T>(
        &self,
        kind: WaitKind,
        cause: &str,
        cancel: &CancellationToken,
        work: impl Future<Output = T>,
    ) -> T {
        const NOTICEABLE: u32 = 5;
        const REMINDER: u32 = 30;
        let mut work = std::pin::pin!(work);
        let mut waiting = Waiting::new(&self.waits, cancel);
        let mut seconds = 0;
        loop {
            match tokio::time::timeout(Duration::from_secs(1), &mut work).await {
                Ok(done) => return done,
                Err(_) => self.progress.step(),
            }
            seconds += 1;
            if seconds == NOTICEABLE || seconds % REMINDER == 0 {
                waiting.say(kind, cause.to_owned(), 0);
            }
        }
    }

    /// Until it works: a raw record has no dead letters to go to.
    async fn decode_again(
        &self,
        record: &Record,
        poison: &Poison,
        cancel: &CancellationToken,
    ) -> Result<Result<(Delivery<H::Message>, Span), Poison>, Cancelled> {
        let mut backoff = Backoff::new();
        let mut waiting = Waiting::new(&self.waits, cancel);
        loop {
            waiting.say(WaitKind::Record, poison.to_string(), self.waits.failed(cancel));
            self.pause(&mut backoff, cancel).await?;
            if let Ok(decoded) = self.decode(record) {
                self.waits.succeeded(cancel);
                return Ok(Ok(decoded));
            }
        }
    }

    async fn pause(&self, backoff: &mut Backoff, cancel: &CancellationToken) -> Result<(), Cancelled> {
        self.progress.step();
        tokio::select! {
            () = cancel.cancelled() => Err(Cancelled),
            () = tokio::time::sleep(backoff.next()) => Ok(()),
        }
    }

    fn decode(&self, record: &Record) -> Result<(Delivery<H::Message>, Span), Poison> {
        let envelope = if self.raw { Envelope::absent(record) } else { self.envelope(record)? };
        let message = self.handler.decode(record, &envelope)?;
        let (span, trace) = if self.raw { (Span::none(), None) } else { trace::process(self.group, record, &envelope) };
        let delivery = Delivery {
            message,
            envelope,
            topic: record.topic.clone(),
            partition: record.partition,
            offset: record.offset,
            trace,
        };
        Ok((delivery, span))
    }

    fn envelope(&self, record: &Record) -> Result<Envelope, Poison> {
        let envelope = Envelope::of(record)?;
        // A producer defect can put a record on the wrong topic (KAFKA-19012), so the type must agree.
        match self.event_types.get(&record.topic) {
            Some(expected) if *expected == envelope.event_type => Ok(envelope),
            _ => Err(Poison::new(
                "unexpected-type",
                format!("ce_type {:?} does not belong on {}", envelope.event_type, record.topic),
            )),
        }
    }

    /// Applies the whole batch at once; when that cannot work, ever smaller parts of it, split between keys,
    /// until the message that cannot be applied is alone.
    async fn apply(
        &self,
        deliveries: &mut [Delivery<H::Message>],
        records: &[Record],
        outcome: &mut Outcome,
        cancel: &CancellationToken,
    ) -> Result<(), Cancelled> {
        if deliveries.is_empty() {
            return Ok(());
        }
        let first_error = match self.attempt(deliveries, cancel).await? {
            Ok(answers) => {
                outcome.answers.extend(answers);
                return Ok(());
            }
            Err(error) => error,
        };
        tracing::warn!(consumer.group = self.group, messages = deliveries.len(), error = %causes(&*first_error),
            "a batch cannot be applied: it is split to find the message that is at fault");
        let first_failed_at = Utc::now();
        // Stable: the messages of one key stay in their order.
        deliveries.sort_by(|a, b| a.envelope.subject.cmp(&b.envelope.subject));
        let tried_alone = u32::from(deliveries.len() == 1);
        let mut parts = split(deliveries, 0..deliveries.len());
        while let Some(part) = parts.pop() {
            let alone = part.len() == 1;
            let mut tries = tried_alone;
            loop {
                tries += 1;
                match self.attempt(&deliveries[part.clone()], cancel).await? {
                    Ok(answers) => break outcome.answers.extend(answers),
                    Err(_) if !alone => break parts.extend(split(deliveries, part)),
                    Err(error) if tries >= TRIES => {
                        let culprit = &deliveries[part.start];
                        let cause =
                            Cause { reason: reason(&*error), error: causes(&*error), attempts: tries, first_failed_at };
                        let record = records.iter().find(|record| {
                            record.topic == culprit.topic
                                && record.partition == culprit.partition
                                && record.offset == culprit.offset
                        });
                        break outcome.letters.extend(record.map(|record| self.bury(record, &cause)));
                    }
                    Err(_) => {}
                }
            }
        }
        Ok(())
    }

    /// One transaction. Waits as long as a dependency is down; the inner error is poison.
    async fn attempt(
        &self,
        batch: &[Delivery<H::Message>],
        cancel: &CancellationToken,
    ) -> Result<Result<Vec<Outgoing>, BoxError>, Cancelled> {
        // Where an earlier process waited, this one goes on.
        let mut backoff = Backoff::after(self.waits.attempts().0);
        let mut waiting = Waiting::new(&self.waits, cancel);
        loop {
            if cancel.is_cancelled() {
                return Err(Cancelled);
            }
            self.progress.step();
            failpoint::hit("before-commit", self.group);
            let handled = match self.layers_allow(batch) {
                Ok(()) => AssertUnwindSafe(self.handler.handle(batch)).catch_unwind().await,
                Err(error) => Ok(Err(error)),
            };
            let result = match handled {
                Ok(Ok(answers)) => Ok(answers),
                Ok(Err(HandlerError::Retry(error))) => Err((error, true)),
                Ok(Err(HandlerError::Poison(error))) => Err((error, self.raw)),
                Err(panic) => Err((panic_message(&*panic).into(), self.raw)),
            };
            let outcome = match result {
                Ok(answers) => Ok(answers),
                Err((error, false)) => Err(error),
                Err((error, true)) => {
                    metrics::RETRIES.with_label_values(&[self.group]).inc();
                    waiting.say(WaitKind::of(&*error), causes(&*error), self.waits.failed(cancel));
                    self.pause(&mut backoff, cancel).await?;
                    continue;
                }
            };
            self.waits.succeeded(cancel);
            return Ok(outcome);
        }
    }

    fn layers_allow(&self, batch: &[Delivery<H::Message>]) -> Result<(), HandlerError> {
        for layer in self.layers.iter() {
            for delivery in batch {
                layer.attempt(self.group, &delivery.topic, &delivery.envelope)?;
            }
        }
        Ok(())
    }

    /// Gives `records` up without handling them: processes that did have ended, as `note` says.
    pub(super) async fn give_up(
        &self,
        records: &[Record],
        note: Note,
        cancel: &CancellationToken,
    ) -> Result<(), Cancelled> {
        let error = format!("{} processes in a row ended while they handled it", note.begun);
        let first_failed_at = note.since.unwrap_or_else(Utc::now);
        let cause = Cause { reason: "process-death", error, attempts: note.begun, first_failed_at };
        let mut letters: Vec<WireMessage> = records.iter().map(|record| self.bury(record, &cause)).collect();
        let publish = self.producer.publish_letters(&mut letters, cancel);
        self.while_making_progress(WaitKind::Broker, UNACKNOWLEDGED, cancel, publish).await
    }

    fn bury(&self, record: &Record, cause: &Cause) -> WireMessage {
        metrics::DEAD_LETTERS.with_label_values(&[self.group, record.topic.as_str(), cause.reason]).inc();
        tracing::error!(
            consumer.group = self.group,
            topic = record.topic,
            partition = record.partition,
            offset = record.offset,
            reason = cause.reason,
            error = cause.error,
            "a message cannot be processed: it goes to the dead letters"
        );
        dead_letter::letter(&self.config, self.group, record, cause)
    }
}

/// Two halves of `part` that share no key, the first one last (it is popped first); single messages when it
/// holds only one key.
pub fn split<M>(deliveries: &[Delivery<M>], part: Range<usize>) -> Vec<Range<usize>> {
    let subject = |index: usize| deliveries[index].envelope.subject.as_str();
    let keys: HashSet<&str> = part.clone().map(subject).collect();
    if keys.len() == 1 {
        return part.rev().map(|index| index..index + 1).collect();
    }
    let middle = part.start + part.len() / 2;
    let boundary = |index: &usize| subject(index - 1) != subject(*index);
    // Some boundary exists: there are two keys, and equal keys are neighbours.
    let cut = (middle.max(part.start + 1)..part.end)
        .find(boundary)
        .or_else(|| (part.start + 1..middle).rev().find(boundary))
        .unwrap_or(part.end - 1);
    vec![cut..part.end, part.start..cut]
}

fn reason(error: &(dyn std::error::Error + 'static)) -> &'static str {
    if let Some(poison) = error.downcast_ref::<Poison>() {
        poison.reason
    } else if error.is::<sqlx::Error>() {
        "database-error"
    } else {
        "handler-error"
    }
}

/// `error` and everything that caused it, in one line.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the handler panicked: {}", text.unwrap_or("with no message"))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn deliveries(keys: &str) -> Vec<Delivery<()>> {
        keys.chars()
            .map(|key| Delivery {
                message: (),
                envelope: Envelope {
                    id: Uuid::nil(),
                    event_type: "t".into(),
                    source: "s".into(),
                    subject: key.to_string(),
                    time: Utc::now(),
                    saga_id: None,
                    step: None,
                    causation_id: None,
                    traceparent: None,
                },
                topic: "t".into(),
                partition: 0,
                offset: 0,
                trace: None,
            })
            .collect()
    }

    fn splits(keys: &str) -> Vec<Range<usize>> {
        split(&deliveries(keys), 0..keys.len())
    }

    #[test]
    fn a_batch_is_split_between_keys_and_the_first_part_comes_first() {
        assert_eq!(splits("abcd"), [2..4, 0..2]);
        assert_eq!(splits("aaab"), [3..4, 0..3]);
        assert_eq!(splits("abbb"), [1..4, 0..1]);
        assert_eq!(splits("ab"), [1..2, 0..1]);
    }

    #[test]
    fn messages_of_one_key_are_split_one_by_one_in_their_order() {
        assert_eq!(splits("aaa"), [2..3, 1..2, 0..1]);
    }
}
