//! What goes into the machine, and what it answers.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::message::Message;
use super::state::Saga;
use super::timeline::TimelineEntry;

/// Something that happened to a saga after its start.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A participant answered.
    Reply(Reply),
    /// Time has passed. Handles one step whose deadline is over; ask again until [`Verdict::NothingDue`].
    Tick,
    /// An operator lets a parked saga go on where it stopped.
    Retry { by: String },
    /// An operator turns a saga back.
    Compensate { by: String, reason: Option<String> },
    /// An operator declares a parked saga ended, and answers for it.
    Resolve { outcome: Outcome, reason: String, by: String },
}

/// An answer of a participant. Made by [`crate::Definition::read_reply`].
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    pub step: String,
    pub kind: ReplyKind,
    /// Id of the reply.
    pub message_id: Uuid,
    /// Id of the command that is answered.
    pub causation_id: Uuid,
    /// The reply's value; of a success, the output of the step.
    pub data: Value,
}

/// What a participant can answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplyKind {
    Success,
    Failure { reason: Option<String> },
    Undone,
}

/// How an operator says that a parked saga ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Outcome {
    Completed,
    Cancelled,
}

/// What an input does.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// The saga moved by exactly one version.
    Moved(Box<Transition>),
    /// The input was taken before. Nothing changes; what it sent and is unanswered is to be sent again.
    Duplicate(Vec<Message>),
    /// The answer came too late to matter. Nothing changes; to be counted.
    Ignored(IgnoredReason),
    /// No participant that follows the protocol sends this: to be dead-lettered.
    Poison(PoisonReason),
    /// An operator's verb that is not possible now, with the reason for people.
    Refused(String),
    /// No deadline is over.
    NothingDue,
}

/// One step of the machine: the new state, its timeline entry, and the messages to send once both are stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Transition {
    pub saga: Saga,
    pub entry: TimelineEntry,
    pub messages: Vec<Message>,
}

/// Why an answer changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IgnoredReason {
    /// The step had been given up; it is undone, or will be.
    Late,
    /// The saga has ended.
    Ended,
    /// The participant had answered otherwise before, and the first answer counts.
    Contradicting,
}

impl IgnoredReason {
    /// Stable, for metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::Ended => "ended",
            Self::Contradicting => "contradicting",
        }
    }
}

/// Why an answer cannot be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum PoisonReason {
    #[error("the saga's definition has no such step")]
    UnknownStep,
    #[error("the step has no such answer")]
    UnknownReply,
    #[error("ce_causationid is not the id of the command it would answer")]
    UnexpectedCausation,
    #[error("the command it would answer was never sent")]
    NeverAsked,
}

impl PoisonReason {
    /// Stable, for dead letters and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownStep => "unknown-step",
            Self::UnknownReply => "unknown-reply",
            Self::UnexpectedCausation => "unexpected-causation",
            Self::NeverAsked => "never-asked",
        }
    }
}

impl fmt::Display for IgnoredReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
