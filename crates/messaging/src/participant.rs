//! What every participant of a saga does alike: it reads a command, and answers each command of a batch once.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::{Delivery, Envelope, HandlerError, Outgoing, Poison, Record};

/// Decodes a message whose value names the subject that its envelope names.
///
/// # Errors
/// Those of [`Record::json`], and `subject-mismatch`.
pub fn about<T: DeserializeOwned>(
    record: &Record,
    envelope: &Envelope,
    subject: impl FnOnce(&T) -> Uuid,
) -> Result<T, Poison> {
    let value = record.json()?;
    let subject = subject(&value).to_string();
    if subject == envelope.subject {
        Ok(value)
    } else {
        let detail = format!("the value is about {subject} but ce_subject is {:?}", envelope.subject);
        Err(Poison::new("subject-mismatch", detail))
    }
}

/// Decodes a command of a saga: besides what [`about`] checks, it says which saga and step the answer goes to.
///
/// # Errors
/// Those of [`about`], and `missing-header`.
pub fn command<T: DeserializeOwned>(
    record: &Record,
    envelope: &Envelope,
    subject: impl FnOnce(&T) -> Uuid,
) -> Result<T, Poison> {
    envelope.saga()?;
    envelope.saga_step()?;
    about(record, envelope, subject)
}

/// What a participant has to say about a command, as its database holds it: the same row gives the same bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Topic of the answer, without prefix.
    pub topic: &'static str,
    /// `ce_type` of that topic.
    pub event_type: &'static str,
    /// When the answer was stored.
    pub time: DateTime<Utc>,
    /// The JSON value.
    pub payload: Vec<u8>,
}

impl Reply {
    /// An answer on `(topic, event_type)`.
    ///
    /// # Panics
    /// When `value` is no JSON value, as a map with keys that are no strings. Message types always are.
    pub fn new((topic, event_type): (&'static str, &'static str), time: DateTime<Utc>, value: &impl Serialize) -> Self {
        let payload = serde_json::to_vec(value).expect("a message type serialises to JSON");
        Reply { topic, event_type, time, payload }
    }
}

/// The answers to one batch, in the order of its commands; a command that came twice is answered once.
#[derive(Debug)]
pub struct Answers {
    source: &'static str,
    ids: HashSet<Uuid>,
    messages: Vec<Outgoing>,
}

impl Answers {
    /// No answer yet. `source` is the `ce_source` of all of them.
    pub fn new(source: &'static str) -> Self {
        Answers { source, ids: HashSet::new(), messages: Vec::new() }
    }

    /// Answers `command`; `id` makes the answer's id from its saga and step.
    ///
    /// # Errors
    /// Poison when the command names no saga or step, which [`command`](command()) has ruled out.
    pub fn push<M>(
        &mut self,
        command: &Delivery<M>,
        id: fn(Uuid, &str) -> Uuid,
        reply: Reply,
    ) -> Result<(), HandlerError> {
        let poison = |poison: Poison| HandlerError::Poison(Box::new(poison));
        let saga = command.envelope.saga().map_err(poison)?;
        let id = id(saga, command.envelope.saga_step().map_err(poison)?);
        if self.ids.insert(id) {
            let topic = (reply.topic, reply.event_type);
            self.messages.push(Outgoing::reply(command, id, topic, self.source, reply.time, reply.payload));
        }
        Ok(())
    }

    /// The messages to publish.
    pub fn into_messages(self) -> Vec<Outgoing> {
        self.messages
    }
}
