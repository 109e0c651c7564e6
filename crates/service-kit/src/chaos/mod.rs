//! Faults on demand: a layer that does to messages what networks, brokers and databases do to them on a bad day.
//!
//! Faults are records on the compacted topic [`TOPIC`], so every instance of every service learns of them within a
//! second, also one that starts later. A fault is a lease: it ends at its `expiresAt`, whoever is dead by then. A
//! tombstone ends it earlier. Nothing of this exists in a process unless `chaos.enabled` is set: no layer, no thread.

mod active;
mod aim;
mod fault;
mod layer;

use std::sync::Arc;

use messaging::{CancellationToken, ClientError, KafkaConfig, Layer, Record, follow};
use tokio::sync::watch;

pub use active::Faults;
pub use aim::Identity;
pub use fault::{BlastRadius, Corrupted, ErrorKind, Fault, FaultRecord, Millis, Target};
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

fn apply(faults: &Faults, record: &Record) {
    let key = String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()).into_owned();
    if record.payload.is_none() {
        return faults.end(&key);
    }
    match record.json::<FaultRecord>() {
        Ok(fault) if fault.id.to_string() == key => faults.begin(fault),
        Ok(fault) => {
            tracing::error!(chaos.fault = %fault.id, key, "a fault whose key is not its id is not obeyed");
        }
        Err(error) => tracing::error!(key, %error, "a fault that cannot be read is not obeyed"),
    }
}
