use async_trait::async_trait;
use sqlx::error::DatabaseError;

use crate::{Envelope, Outgoing, Poison, Record};

/// Any error, with its source.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// A decoded message with where it came from.
#[derive(Clone, Debug)]
pub struct Delivery<M> {
    /// What the handler's `decode` made of it.
    pub message: M,
    /// Its CloudEvents attributes.
    pub envelope: Envelope,
    /// Topic without prefix.
    pub topic: String,
    /// Partition it was read from; the same for every topic of a saga.
    pub partition: i32,
    /// Offset in that partition.
    pub offset: i64,
    /// `traceparent` for the messages that this one causes.
    pub trace: Option<String>,
}

/// What a service does with its messages.
///
/// There are three outcomes. A business "no" (*reject*) is no error: it is an answer among the returned
/// messages, and the saga compensates. The other two are [`HandlerError`]s.
#[async_trait]
pub trait BatchHandler: Send + Sync + 'static {
    /// The decoded message: one type, or an enum over the subscribed topics.
    type Message: Send + Sync + 'static;

    /// Decodes one message. Its envelope was read already, its key is its subject, and its `ce_type` is the
    /// one subscribed for its topic.
    ///
    /// # Errors
    /// A [`Poison`] sends the message to the dead letters at once.
    fn decode(&self, record: &Record, envelope: &Envelope) -> Result<Self::Message, Poison>;

    /// Applies the whole batch in one transaction and returns every message to publish, the stored answers
    /// of duplicates too.
    ///
    /// It is called again with the same batch, or a part of it, after an error or a crash: effects must
    /// be idempotent by their keys in the database.
    ///
    /// # Errors
    /// See [`HandlerError`].
    async fn handle(&self, batch: &[Delivery<Self::Message>]) -> Result<Vec<Outgoing>, HandlerError>;
}

/// Why a batch could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    /// Something the service depends on is down or busy. The partition pauses and the batch is tried again
    /// for ever: a message is never given up because a database is down.
    #[error("a dependency is unavailable")]
    Retry(#[source] BoxError),
    /// This can never work. The batch is split by key until one message is alone; after three tries it is a
    /// dead letter, and its neighbours go on.
    #[error("the batch cannot be applied")]
    Poison(#[source] BoxError),
}

impl HandlerError {
    /// A message that can never be applied, with its stable reason.
    pub fn poison(reason: &'static str, detail: impl Into<String>) -> Self {
        HandlerError::Poison(Box::new(Poison::new(reason, detail)))
    }
}

impl From<sqlx::Error> for HandlerError {
    fn from(error: sqlx::Error) -> Self {
        if is_unavailable(&error) {
            HandlerError::Retry(Box::new(error))
        } else {
            HandlerError::Poison(Box::new(error))
        }
    }
}

/// Whether `error` says that the database is down, busy, or refused this attempt for a reason that another
/// attempt can overcome.
///
/// By SQLSTATE class: 08 connection, 40 rollback (serialization, deadlock), 53 resources, 55 object state
/// (lock timeout), 57 operator intervention (shutdown, statement timeout), 58 system; besides these 28 and
/// 3D, which come only while connecting, and 25006 (read only: a failover is under way).
pub fn is_unavailable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(error) => state_is_unavailable(error.as_ref()),
        _ => false,
    }
}

fn state_is_unavailable(error: &dyn DatabaseError) -> bool {
    error.code().is_some_and(|state| {
        state == "25006"
            || ["08", "28", "3D", "40", "53", "55", "57", "58"].iter().any(|class| state.starts_with(class))
    })
}
