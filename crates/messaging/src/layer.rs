//! Layers: what stands between a log and the handler, and between a handler's answers and their log.
//!
//! A service pushes its layers where it is wired; its handlers know nothing of them. Without layers the runtime does no
//! extra work.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{Envelope, HandlerError, Outgoing, Record};

/// The layers of a service, outermost first.
pub type Layers = Arc<[Arc<dyn Layer>]>;

/// Sees every message of a service on its way in and out, and may change its fate.
#[async_trait]
pub trait Layer: Send + Sync + 'static {
    /// What `group` read, before it is decoded. Called once for each batch that is read; a batch that comes again after
    /// a crash is read again. It may take its time: the consumer stays in its group meanwhile.
    async fn receive(&self, group: &'static str, records: Vec<Record>) -> Received;

    /// Asked before each attempt to apply the message; the attempt fails as if the handler had.
    ///
    /// # Errors
    /// What the attempt is to fail with.
    fn attempt(&self, group: &'static str, topic: &str, envelope: &Envelope) -> Result<(), HandlerError>;

    /// What is to be published after its transaction was committed. What is left out counts as acknowledged.
    async fn send(&self, messages: Vec<Outgoing>) -> Vec<Outgoing>;
}

/// What becomes of the records that a consumer read. A record in neither list counts as processed.
#[derive(Debug, Default)]
pub struct Received {
    /// Handled now, in this order.
    pub handle: Vec<Record>,
    /// Put at the end of the topic they came from, with their key and headers, before the offsets are committed.
    pub requeue: Vec<Record>,
}

impl From<Vec<Record>> for Received {
    fn from(handle: Vec<Record>) -> Self {
        Received { handle, requeue: Vec::new() }
    }
}

/// `records` after each of `layers`.
pub(crate) async fn receive(layers: &Layers, group: &'static str, records: Vec<Record>) -> Received {
    let mut received = Received::from(records);
    for layer in layers.iter() {
        let Received { handle, requeue } = layer.receive(group, received.handle).await;
        received.handle = handle;
        received.requeue.extend(requeue);
    }
    received
}
