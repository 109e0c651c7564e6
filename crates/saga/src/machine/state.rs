//! What is known of a running saga.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// Where a saga as a whole is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SagaState {
    /// Going forward.
    Running,
    /// Going back: undos are sent or waited for.
    Compensating,
    /// Ended: every step succeeded.
    Completed,
    /// Ended: every effect was undone.
    Compensated,
    /// At rest until an operator acts or an awaited undo is confirmed.
    Parked,
}

impl SagaState {
    pub const ALL: [Self; 5] = [Self::Running, Self::Compensating, Self::Completed, Self::Compensated, Self::Parked];

    /// The name used in the database, in the API and in messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Compensating => "COMPENSATING",
            Self::Completed => "COMPLETED",
            Self::Compensated => "COMPENSATED",
            Self::Parked => "PARKED",
        }
    }

    /// The state of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// Nothing can happen any more. PARKED is not terminal.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Compensated)
    }

    /// Nothing happens by itself: ended or parked.
    #[must_use]
    pub fn is_at_rest(self) -> bool {
        self.is_terminal() || self == Self::Parked
    }
}

impl fmt::Display for SagaState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where one step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Phase {
    /// Steps before it have not succeeded yet.
    #[default]
    Waiting,
    /// Its command was sent; the answer is waited for.
    Requested,
    /// The participant did it.
    Succeeded,
    /// The participant refused, and did nothing.
    Failed,
    /// Given up without an answer: done or not, nobody knows.
    Unknown,
    /// Its undo was sent; the confirmation is waited for.
    Undoing,
    /// The undo is confirmed.
    Undone,
    /// Never asked for, and never will be.
    Skipped,
}

impl Phase {
    pub const ALL: [Self; 8] = [
        Self::Waiting,
        Self::Requested,
        Self::Succeeded,
        Self::Failed,
        Self::Unknown,
        Self::Undoing,
        Self::Undone,
        Self::Skipped,
    ];

    /// The name used in the database and in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "WAITING",
            Self::Requested => "REQUESTED",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Unknown => "UNKNOWN",
            Self::Undoing => "UNDOING",
            Self::Undone => "UNDONE",
            Self::Skipped => "SKIPPED",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A saga instance. Its definition is apart, and always the one it was started with.
#[derive(Clone, Debug, PartialEq)]
pub struct Saga {
    pub id: Uuid,
    /// Number of timeline entries; the entry that led here has this version.
    pub version: u32,
    pub state: SagaState,
    /// Why it is compensating, compensated, parked, or was resolved.
    pub reason: Option<String>,
    /// Why it turned back. Kept while `reason` tells why it is parked.
    pub cause: Option<String>,
    /// In the order of the definition's steps.
    pub steps: Vec<StepRun>,
    pub started_at: DateTime<Utc>,
    /// Time of the last transition; of an ended saga, the time of its end.
    pub updated_at: DateTime<Utc>,
    /// The value of the message that started it.
    pub trigger: Arc<Value>,
    /// The values of the success replies, by step name.
    pub outputs: BTreeMap<String, Arc<Value>>,
}

/// What is known of one step. Small: it is written with every transition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StepRun {
    pub phase: Phase,
    /// How often the command was sent in this round; an operator's retry opens a new round.
    #[serde(skip_serializing_if = "is_zero")]
    pub attempts: u32,
    /// When the command was first sent: the time of the message, whenever it is sent again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requested_at: Option<DateTime<Utc>>,
    /// Version of the entry that first sent the command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<u32>,
    /// Version of the entry that took the answer to the command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered_by: Option<u32>,
    /// How often the undo was sent in this round.
    #[serde(skip_serializing_if = "is_zero")]
    pub undo_attempts: u32,
    /// When the undo was first sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undo_requested_at: Option<DateTime<Utc>>,
    /// Version of the entry that first sent the undo.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undo_requested_by: Option<u32>,
    /// Version of the entry that took the confirmation of the undo.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undone_by: Option<u32>,
    /// When the attempt in flight, command or undo, is over. None at rest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<DateTime<Utc>>,
    /// Why it failed or was given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// An operator had the command sent again after a refusal. From then on a refusal may be the old one,
    /// so that it no longer proves that nothing was done.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub refused_before: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}
