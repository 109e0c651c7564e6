//! The messaging runtime: batches of Kafka messages in, one transaction, answers out, offsets last.
//!
//! The order is always the same, and every guarantee rests on it:
//!
//! 1. poll whatever is ready (no waiting to fill a batch);
//! 2. decode; what cannot be decoded is a [dead letter](dead_letter);
//! 3. the service's [`BatchHandler`] applies the batch in one database transaction;
//! 4. its answers are produced and every acknowledgement awaited;
//! 5. only then the offsets are committed.
//!
//! A crash between any two of these steps leads to redelivery, never to loss: effects are idempotent by
//! their keys in the database, and answers are rebuilt byte for byte from the stored rows.
//!
//! This is the only crate that links librdkafka.

pub mod admin;
mod backoff;
mod client;
mod config;
mod consumer;
pub mod dead_letter;
mod envelope;
pub mod failpoint;
mod follow;
mod handler;
mod layer;
mod metrics;
mod outgoing;
pub mod participant;
mod producer;
mod record;
pub mod trace;
mod watchdog;

pub use client::ClientError;
pub use config::KafkaConfig;
#[doc(hidden)]
pub use consumer::split;
pub use consumer::{Consumer, ConsumerHandle, ConsumerHealth, Due, Fired, Gate, Timers, Wait, WaitKind};
pub use envelope::Envelope;
pub use follow::{Following, follow};
pub use handler::{BatchHandler, BoxError, Delivery, HandlerError, is_unavailable};
pub use layer::{Layer, Layers, Received};
pub use metrics::lag;
pub use outgoing::Outgoing;
pub use producer::{Cancelled, Placed, Producer, SendError};
pub use record::{Poison, Record};

pub use async_trait::async_trait;
pub use tokio_util::sync::CancellationToken;
