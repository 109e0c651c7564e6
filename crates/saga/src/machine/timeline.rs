//! The timeline: one entry for every transition, and nothing else.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::state::SagaState;

/// One transition of a saga.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TimelineEntry {
    /// 1 for the start, then one more each.
    pub version: u32,
    pub at: DateTime<Utc>,
    #[serde(rename = "type")]
    pub kind: EntryKind,
    /// State of the saga after this transition.
    pub state: SagaState,
    /// The step it is about, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The message that caused it; none for deadlines and operators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<Uuid>,
    /// For people: a reason, or who did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What has to be kept of the message: the trigger, or the output of a step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
    /// Ids of the messages that were sent because of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub emitted: Vec<Uuid>,
}

/// What happened. Closed, and the names are stable: they are in databases and in other people's queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum EntryKind {
    /// The trigger came.
    Started,
    /// A participant did its step.
    StepSucceeded,
    /// A participant refused its step.
    StepFailed,
    /// No answer in time: the command was sent again.
    StepRetried,
    /// No answer to the last attempt: the outcome is unknown.
    StepTimedOut,
    /// A participant confirmed an undo.
    StepUndone,
    /// No confirmation in time: the undo was sent again.
    UndoRetried,
    /// No confirmation of the last attempt: parked.
    UndoTimedOut,
    /// An operator let a parked saga go on.
    OperatorRetried,
    /// An operator turned the saga back.
    OperatorCompensated,
    /// An operator declared a parked saga ended.
    OperatorResolved,
}

impl EntryKind {
    pub const ALL: [Self; 11] = [
        Self::Started,
        Self::StepSucceeded,
        Self::StepFailed,
        Self::StepRetried,
        Self::StepTimedOut,
        Self::StepUndone,
        Self::UndoRetried,
        Self::UndoTimedOut,
        Self::OperatorRetried,
        Self::OperatorCompensated,
        Self::OperatorResolved,
    ];

    /// The stable name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Started => "STARTED",
            Self::StepSucceeded => "STEP_SUCCEEDED",
            Self::StepFailed => "STEP_FAILED",
            Self::StepRetried => "STEP_RETRIED",
            Self::StepTimedOut => "STEP_TIMED_OUT",
            Self::StepUndone => "STEP_UNDONE",
            Self::UndoRetried => "UNDO_RETRIED",
            Self::UndoTimedOut => "UNDO_TIMED_OUT",
            Self::OperatorRetried => "OPERATOR_RETRIED",
            Self::OperatorCompensated => "OPERATOR_COMPENSATED",
            Self::OperatorResolved => "OPERATOR_RESOLVED",
        }
    }

    /// The kind of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

impl fmt::Display for EntryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
