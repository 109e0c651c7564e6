//! What every participant of a saga does alike: it reads a command, and answers each command of a batch once.

use std::collections::{BTreeSet, HashMap, HashSet};

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

/// The rows that the commands of a batch are about, by subject: what the batch changed, and what it found there.
#[derive(Debug)]
pub struct Rows<R>(HashMap<Uuid, R>);

impl<R> Rows<R> {
    /// `changed`, as the statements of the batch returned them. Of two with one subject the later one counts.
    pub fn new(changed: impl IntoIterator<Item = (Uuid, R)>) -> Self {
        Rows(changed.into_iter().collect())
    }

    /// The `subjects` that have no row here yet, each once: their rows are to be read.
    pub fn missing(&self, subjects: impl Iterator<Item = Uuid>) -> Vec<Uuid> {
        let missing: BTreeSet<Uuid> = subjects.filter(|subject| !self.0.contains_key(subject)).collect();
        missing.into_iter().collect()
    }

    /// Adds rows that were there.
    pub fn add(&mut self, stored: impl IntoIterator<Item = (Uuid, R)>) {
        self.0.extend(stored);
    }

    /// The row of `subject`, if it has one.
    pub fn get(&self, subject: Uuid) -> Option<&R> {
        self.0.get(&subject)
    }

    /// The row of `subject`, which must have one.
    ///
    /// # Errors
    /// Retry when there is none: it was found and then was gone, though no participant deletes one.
    pub fn of(&self, subject: Uuid) -> Result<&R, HandlerError> {
        self.get(subject).ok_or_else(|| HandlerError::Retry(Box::new(Vanished(subject))))
    }
}

/// A row that was there is not.
#[derive(Debug, thiserror::Error)]
#[error("the row of {0} was found and then was gone")]
struct Vanished(Uuid);

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

    /// Answers `command`, if there is a `reply` yet; `id` makes the answer's id from its saga and step.
    ///
    /// # Errors
    /// Poison when the command names no saga or step, which [`command`](command()) has ruled out.
    pub fn push<M>(
        &mut self,
        command: &Delivery<M>,
        id: fn(Uuid, &str) -> Uuid,
        reply: impl Into<Option<Reply>>,
    ) -> Result<(), HandlerError> {
        let Some(reply) = reply.into() else { return Ok(()) };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_batch_changed_last_counts_and_what_it_left_is_read_once() {
        let [one, two, three] = [1, 2, 3].map(Uuid::from_u128);
        let mut rows = Rows::new([(one, "charged"), (one, "refunded")]);
        assert_eq!(rows.missing([three, one, two, three].into_iter()), [two, three]);
        rows.add([(two, "stored")]);
        assert_eq!((*rows.of(one).unwrap(), *rows.of(two).unwrap()), ("refunded", "stored"));
        assert!(matches!(rows.of(three), Err(HandlerError::Retry(_))));
    }
}
