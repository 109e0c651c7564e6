use std::time::Duration;

use messaging::{Envelope, HandlerError, Layer, Outgoing, Received, Record, async_trait};
use uuid::Uuid;

use super::HEADER;
use super::active::{Armed, Faults};
use super::aim::draw;
use super::bounds::{LONGEST, MOST_COPIES};
use super::fault::{Corrupted, ErrorKind, Fault};
use super::seen::Seen;

/// A larger message is not put back: with the header that marks it, its topic might not take it. Bytes, well below what
/// a broker allows unless told otherwise (1,048,588 with everything around it).
const LARGEST_PUT_BACK: usize = 1_000_000;

/// Does to the messages of a service what the faults in force say.
pub struct ChaosLayer {
    faults: Faults,
}

impl ChaosLayer {
    /// Obeys `faults`.
    pub fn new(faults: Faults) -> Self {
        ChaosLayer { faults }
    }
}

#[async_trait]
impl Layer for ChaosLayer {
    async fn receive(&self, _: &'static str, records: Vec<Record>) -> Received {
        let most = records.len().saturating_mul(1 + MOST_COPIES as usize);
        let mut received = Received::from(records);
        for armed in self.faults.in_force() {
            match armed.fault() {
                Fault::Latency { duration, jitter } => {
                    let waits = received.handle.iter().filter(|record| hits(&armed, record));
                    let longest = waits.map(|record| jittered(&armed, record, (*duration).into(), (*jitter).into()));
                    if let Some(longest) = longest.max() {
                        self.faults.hold(&armed, longest).await;
                    }
                }
                Fault::SlowConsumer { per_message } => {
                    let hit = received.handle.iter().filter(|record| hits(&armed, record)).count();
                    let wait = Duration::from(*per_message).saturating_mul(u32::try_from(hit).unwrap_or(u32::MAX));
                    if !wait.is_zero() {
                        self.faults.hold(&armed, wait).await;
                    }
                }
                Fault::PauseConsumer => {
                    if received.handle.iter().filter(|record| hits(&armed, record)).count() > 0 {
                        self.faults.hold(&armed, LONGEST).await;
                    }
                }
                Fault::DropMessage => received.handle.retain(|record| !hits(&armed, record)),
                Fault::Duplicate { copies } => duplicate(&armed, &mut received.handle, *copies, most),
                Fault::Reorder => reorder(&armed, &mut received),
                Fault::Corrupt { part } => {
                    let corrupt = |record: Record| {
                        if hits(&armed, &record) { broken(marked(record, &armed), *part) } else { record }
                    };
                    received.handle = received.handle.into_iter().map(corrupt).collect();
                }
                // Here all headers can be seen; the attempts come later.
                Fault::Error { .. } => {
                    for record in &received.handle {
                        if let Some(id) = record.header("ce_id").and_then(|id| Uuid::try_parse(id).ok()) {
                            armed.condemn(Seen::In(record), id);
                        }
                    }
                }
                Fault::DropReply => {}
            }
        }
        received
    }

    fn attempt(&self, _: &'static str, topic: &str, envelope: &Envelope) -> Result<(), HandlerError> {
        for armed in self.faults.in_force() {
            let Fault::Error { kind, .. } = armed.fault() else { continue };
            if armed.fails(topic, envelope.id, envelope.traceparent.as_deref()) {
                let cause = format!("the fault {} says so", armed.key);
                return Err(match kind {
                    ErrorKind::Transient => HandlerError::Retry(cause.into()),
                    ErrorKind::Permanent => HandlerError::poison("injected-error", cause),
                });
            }
        }
        Ok(())
    }

    async fn send(&self, mut messages: Vec<Outgoing>) -> Vec<Outgoing> {
        for armed in self.faults.in_force() {
            if *armed.fault() == Fault::DropReply {
                messages.retain(|message| !armed.hits_sent(Seen::Out(message), message.id));
            }
        }
        messages
    }
}

fn hits(armed: &Armed, record: &Record) -> bool {
    armed.hits(Seen::In(record))
}

/// Adds the copies of the victims behind all others, until there are `most`: faults add up, and memory does not.
fn duplicate(armed: &Armed, records: &mut Vec<Record>, copies: u32, most: usize) {
    let victims: Vec<Record> = records.iter().filter(|record| hits(armed, record)).cloned().collect();
    let room = most.saturating_sub(records.len());
    let copies = (0..copies).flat_map(|_| victims.iter().cloned()).take(room);
    records.extend(copies);
}

/// Puts the victims back to the end of their topic, each once.
fn reorder(armed: &Armed, received: &mut Received) {
    for record in std::mem::take(&mut received.handle) {
        let fits = record.size() <= LARGEST_PUT_BACK;
        if record.header(HEADER).is_none() && armed.hits_if(Seen::In(&record), || fits) {
            received.requeue.push(marked(record, armed));
        } else {
            received.handle.push(record);
        }
    }
}

/// `duration`, give or take up to `jitter`.
fn jittered(armed: &Armed, record: &Record, duration: Duration, jitter: Duration) -> Duration {
    let lot = draw(armed.record.seed ^ 1, &Seen::In(record).place());
    (duration + jitter.mul_f64(2.0 * lot)).saturating_sub(jitter)
}

fn marked(mut record: Record, armed: &Armed) -> Record {
    record.headers.push((HEADER.to_owned(), Some(armed.key.clone().into_bytes())));
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

#[cfg(test)]
mod tests {
    use chrono::Utc;
    use serde_json::{Value, json};

    use super::*;
    use crate::chaos::Identity;

    fn layer(kinds: &[Value]) -> ChaosLayer {
        let faults = Faults::new(Identity { service: "s".into(), instance: "s-1".into() });
        for kind in kinds {
            let expires = Utc::now() + Duration::from_secs(60);
            let record = json!({ "id": Uuid::new_v4(), "target": {}, "fault": kind, "expiresAt": expires });
            faults.begin(serde_json::from_value(record).expect("a fault"), Utc::now());
        }
        ChaosLayer::new(faults)
    }

    fn record(bytes: usize) -> Record {
        let (topic, payload) = ("t".to_owned(), Some(vec![b'x'; bytes]));
        Record { topic, partition: 0, offset: 0, timestamp_ms: None, key: None, payload, headers: Vec::new() }
    }

    #[tokio::test]
    async fn a_message_that_could_not_be_put_back_stays_where_it_is() {
        let layer = layer(&[json!({ "type": "reorder" })]);
        let Received { handle, requeue } = layer.receive("g", vec![record(10), record(LARGEST_PUT_BACK + 1)]).await;
        assert_eq!((handle.len(), requeue.len()), (1, 1));
        assert!(requeue[0].header(HEADER).is_some());
        let Received { handle, requeue } = layer.receive("g", requeue).await;
        assert_eq!((handle.len(), requeue.len()), (1, 0), "once is enough");
    }

    #[tokio::test]
    async fn duplicates_of_duplicates_have_an_end() {
        let layer = layer(&vec![json!({ "type": "duplicate", "copies": 10 }); 9]);
        let received = layer.receive("g", vec![record(1); 100]).await;
        assert_eq!(received.handle.len(), 1_100);
    }

    #[tokio::test]
    async fn a_wait_without_end_ends_at_its_lease() {
        let layer = layer(&[json!({ "type": "slow-consumer", "perMessage": "15m" })]);
        let armed = layer.faults.in_force().pop().expect("one in force");
        let ends = async {
            tokio::task::yield_now().await;
            layer.faults.end(&armed.key);
        };
        let (received, ()) = tokio::join!(layer.receive("g", vec![record(1); 10_000]), ends);
        assert_eq!(received.handle.len(), 10_000);
    }
}
