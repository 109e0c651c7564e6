//! From Kafka's messages to the machine's inputs, as far as a message tells by itself.

use messaging::{Envelope, Poison, Record};
use serde_json::Value;
use uuid::Uuid;

/// A message to the orchestrator.
#[derive(Clone, Debug)]
pub struct Inbound {
    /// The saga it is for; a saga's id is the subject of its messages.
    pub saga: Uuid,
    pub(crate) kind: Kind,
    /// The message's value, an object.
    pub(crate) data: Value,
}

/// What a message claims to be.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// Starts a saga.
    Trigger,
    /// Answers a command. Whether the saga's own definition has such an answer shows when it is folded.
    Reply { step: String, causation: Uuid },
}

/// Reads a message; `starts` when its topic starts sagas.
///
/// # Errors
/// When it names no saga, is no answer to anything, or its value is no JSON object.
pub fn decode(record: &Record, envelope: &Envelope, starts: bool) -> Result<Inbound, Poison> {
    let saga = Uuid::try_parse(&envelope.subject).map_err(|error| {
        Poison::new("invalid-subject", format!("ce_subject {:?} is no saga id: {error}", envelope.subject))
    })?;
    let kind = if starts {
        Kind::Trigger
    } else {
        if envelope.saga()? != saga {
            return Err(Poison::new("invalid-subject", "ce_sagaid is not ce_subject".to_owned()));
        }
        Kind::Reply { step: envelope.saga_step()?.to_owned(), causation: envelope.causation()? }
    };
    let data: Value = record.json()?;
    if !data.is_object() {
        return Err(Poison::new("invalid-json", "the value is not a JSON object".to_owned()));
    }
    Ok(Inbound { saga, kind, data })
}
