//! Faults on demand: a layer that does to messages what networks, brokers and databases do to them on a bad day.
//!
//! Faults are records on the compacted topic [`TOPIC`], so every instance of every service learns of them within a
//! second, also one that starts later. A fault is a lease: it ends at its `expiresAt`, whoever is dead by then. A
//! tombstone ends it earlier. Nothing of this exists in a process unless `chaos.enabled` is set: no layer, no thread.

mod active;
mod aim;
mod bounds;
mod count;
mod fault;
mod layer;
mod mark;
mod seen;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use messaging::{CancellationToken, ClientError, KafkaConfig, Layer, Record, follow};
use tokio::sync::watch;

pub use active::Faults;
pub use aim::Identity;
pub use bounds::OutOfBounds;
pub use fault::{BlastRadius, Corrupted, ErrorKind, Fault, FaultRecord, Millis, Target, Variant};
pub use layer::ChaosLayer;

/// Where faults are announced: key is the fault's id, value a [`FaultRecord`] as JSON, a tombstone ends it.
pub const TOPIC: &str = "chaos.faults";
/// On a record that a fault has changed or put back: the fault's id.
pub const HEADER: &str = "chaos-fault";

/// The layer of `identity`, and the faults it obeys.
pub(crate) fn layer(identity: Identity) -> (Arc<dyn Layer>, Faults) {
    let faults = Faults::new(identity);
    (Arc::new(ChaosLayer::new(faults.clone())), faults)
}

/// Keeps `faults` as the topic says until `stop`; the receiver says when what was there at the start is known.
pub(crate) fn obey(
    config: &KafkaConfig,
    faults: Faults,
    stop: CancellationToken,
) -> Result<(watch::Receiver<bool>, tokio::task::JoinHandle<()>), ClientError> {
    let following = follow(config, TOPIC, stop, move |record| apply(&faults, &record))?;
    Ok((following.caught_up, following.stopped))
}

/// Anybody may write to the topic: what cannot be obeyed is said once, and changes nothing.
fn apply(faults: &Faults, record: &Record) {
    let key = String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()).into_owned();
    if record.payload.is_none() {
        return faults.end(&key);
    }
    let fault = match record.json::<FaultRecord>() {
        Ok(fault) => fault,
        Err(error) => return tracing::error!(key, %error, "a fault that cannot be read is not obeyed"),
    };
    if fault.id.to_string() != key {
        return tracing::error!(chaos.fault = %fault.id, key, "a fault whose key is not its id is not obeyed");
    }
    match fault.check() {
        Ok(()) => {
            let announced_at = record.timestamp_ms.and_then(DateTime::from_timestamp_millis);
            faults.begin(fault, announced_at.unwrap_or_else(Utc::now));
        }
        Err(error) => tracing::error!(key, %error, "a fault that asks for too much is not obeyed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_cannot_be_obeyed_changes_nothing() {
        let faults = Faults::new(Identity { service: "s".into(), instance: "s-1".into() });
        let id = "7f0c9f5e-6f0a-4a51-9d6f-0b9c3f1c2d11";
        let announce_at = |timestamp_ms: Option<i64>, key: &[u8], payload: &[u8]| {
            let (key, payload) = (Some(key.to_vec()), Some(payload.to_vec()));
            let (topic, headers) = (TOPIC.to_owned(), Vec::new());
            apply(&faults, &Record { topic, partition: 0, offset: 0, timestamp_ms, key, payload, headers });
            faults.in_force().len()
        };
        let announce = |key: &[u8], payload: &[u8]| announce_at(None, key, payload);
        let fault = |wait: &str| {
            let fault = format!(r#"{{"type":"slow-consumer","perMessage":"{wait}"}}"#);
            format!(r#"{{"id":"{id}","target":{{}},"fault":{fault},"expiresAt":"2999-01-01T00:00:00Z"}}"#)
        };
        let deep = "[".repeat(100_000);
        let ages = fault("500000000years");
        for payload in [&b""[..], b"\xff\x00", b"{}", b"null", deep.as_bytes(), ages.as_bytes()] {
            assert_eq!(announce(id.as_bytes(), payload), 0, "{}", String::from_utf8_lossy(payload));
        }
        assert_eq!(announce(b"another key", fault("1ms").as_bytes()), 0);
        assert_eq!(announce(b"\xff", fault("1ms").as_bytes()), 0);
        let hour_ago = Utc::now().timestamp_millis() - 3_600_000;
        assert_eq!(announce_at(Some(hour_ago), id.as_bytes(), fault("1ms").as_bytes()), 0, "it is over since long");
        assert_eq!(announce(id.as_bytes(), fault("1ms").as_bytes()), 1);
        // What is in force stays so.
        assert_eq!(announce(id.as_bytes(), ages.as_bytes()), 1);
    }
}
