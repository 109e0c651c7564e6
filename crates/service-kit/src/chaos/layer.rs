use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use messaging::{Envelope, HandlerError, Layer, Outgoing, Received, Record, async_trait};
use tokio::time::Instant;

use super::HEADER;
use super::active::{Armed, Faults};
use super::aim::draw;
use super::fault::{Corrupted, ErrorKind, Fault};

/// Does to the messages of a service what the faults in force say.
pub struct ChaosLayer {
    faults: Faults,
    sent: AtomicU64,
}

impl ChaosLayer {
    /// Obeys `faults`.
    pub fn new(faults: Faults) -> Self {
        ChaosLayer { faults, sent: AtomicU64::new(0) }
    }

    async fn wait(&self, armed: &Armed, wait: Duration) {
        self.faults.hold(armed, Instant::now() + wait).await;
    }
}

#[async_trait]
impl Layer for ChaosLayer {
    async fn receive(&self, _: &'static str, records: Vec<Record>) -> Received {
        let mut received = Received::from(records);
        for armed in self.faults.in_force() {
            match armed.fault() {
                Fault::Latency { duration, jitter } => {
                    let waits = received.handle.iter().filter(|record| hits(&armed, record));
                    let longest = waits.map(|record| jittered(&armed, record, (*duration).into(), (*jitter).into()));
                    if let Some(longest) = longest.max() {
                        self.wait(&armed, longest).await;
                    }
                }
                Fault::SlowConsumer { per_message } => {
                    let hit = received.handle.iter().filter(|record| hits(&armed, record)).count();
                    let wait = Duration::from(*per_message).saturating_mul(u32::try_from(hit).unwrap_or(u32::MAX));
                    if !wait.is_zero() {
                        self.wait(&armed, wait).await;
                    }
                }
                Fault::PauseConsumer => {
                    if received.handle.iter().filter(|record| hits(&armed, record)).count() > 0 {
                        self.faults.hold(&armed, armed.until).await;
                    }
                }
                Fault::DropMessage => received.handle.retain(|record| !hits(&armed, record)),
                Fault::Duplicate { copies } => {
                    let victims: Vec<Record> =
                        received.handle.iter().filter(|record| hits(&armed, record)).cloned().collect();
                    for _ in 0..*copies {
                        received.handle.extend(victims.iter().cloned());
                    }
                }
                Fault::Reorder => {
                    let (back, handle) = received
                        .handle
                        .into_iter()
                        .partition(|record| record.header(HEADER).is_none() && hits(&armed, record));
                    received.handle = handle;
                    received.requeue.extend(Vec::into_iter(back).map(|record| marked(record, &armed)));
                }
                Fault::Corrupt { part } => {
                    let corrupt = |record: Record| {
                        if hits(&armed, &record) { broken(marked(record, &armed), *part) } else { record }
                    };
                    received.handle = received.handle.into_iter().map(corrupt).collect();
                }
                Fault::Error { .. } | Fault::DropReply => {}
            }
        }
        received
    }

    fn attempt(&self, _: &'static str, topic: &str, envelope: &Envelope) -> Result<(), HandlerError> {
        for armed in self.faults.in_force() {
            let Fault::Error { kind, attempts } = armed.fault() else { continue };
            let step = envelope.step.as_deref();
            let hit = || armed.hits(topic, step, Some(&envelope.subject), &envelope.id.to_string());
            match kind {
                ErrorKind::Transient if armed.fails_again(envelope.id, *attempts, hit) => {
                    return Err(HandlerError::Retry(injected(&armed).into()));
                }
                ErrorKind::Permanent if armed.always_fails(envelope.id, hit) => {
                    return Err(HandlerError::poison("injected-error", injected(&armed)));
                }
                ErrorKind::Transient | ErrorKind::Permanent => {}
            }
        }
        Ok(())
    }

    async fn send(&self, mut messages: Vec<Outgoing>) -> Vec<Outgoing> {
        for armed in self.faults.in_force() {
            if *armed.fault() == Fault::DropReply {
                messages.retain(|message| {
                    // The same message sent again is another delivery, and draws another lot.
                    let place = format!("{}#{}", message.id, self.sent.fetch_add(1, Ordering::Relaxed));
                    !armed.hits(&message.topic, message.step.as_deref(), Some(&message.key), &place)
                });
            }
        }
        messages
    }
}

fn injected(armed: &Armed) -> String {
    format!("the fault {} says so", armed.record.id)
}

fn place(record: &Record) -> String {
    format!("{}/{}@{}", record.topic, record.partition, record.offset)
}

fn hits(armed: &Arc<Armed>, record: &Record) -> bool {
    let key = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok());
    armed.hits(&record.topic, record.header("ce_step"), key, &place(record))
}

/// `duration`, give or take up to `jitter`.
fn jittered(armed: &Armed, record: &Record, duration: Duration, jitter: Duration) -> Duration {
    let lot = draw(armed.record.seed ^ 1, &place(record));
    (duration + jitter.mul_f64(2.0 * lot)).saturating_sub(jitter)
}

fn marked(mut record: Record, armed: &Armed) -> Record {
    record.headers.push((HEADER.to_owned(), Some(armed.record.id.to_string().into_bytes())));
    record
}

fn broken(mut record: Record, part: Corrupted) -> Record {
    match part {
        Corrupted::Payload => {
            let payload = record.payload.get_or_insert_default();
            payload.truncate(payload.len() / 2);
            payload.push(0xff);
        }
        Corrupted::Header => {
            record.headers.retain(|(name, _)| name != "ce_id");
            record.headers.push(("ce_id".to_owned(), Some(b"not-a-uuid".to_vec())));
        }
        Corrupted::Key => record.key.get_or_insert_default().push(b'!'),
    }
    record
}
