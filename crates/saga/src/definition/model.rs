//! A checked definition: what the machine runs on. Everything a file may leave out is filled in.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::pointer::Pointer;

/// A topic and the CloudEvents type of what is on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Channel {
    pub topic: String,
    #[serde(rename = "type")]
    pub event_type: String,
}

/// Everything a definition says, in the shape of its file. Its canonical JSON is what is stored and hashed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Body {
    pub saga: String,
    pub version: u32,
    pub trigger: Channel,
    pub steps: Vec<Step>,
    pub ends: Ends,
}

/// One step of a saga: a command, its answers, and the way back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Step {
    pub name: String,
    /// Steps that must have succeeded before this one is requested.
    pub after: Vec<String>,
    /// Once this step has succeeded the saga only goes forward.
    pub pivot: bool,
    pub command: Outlet,
    pub replies: Replies,
    /// Time from one attempt to the next, and from the last one to giving up.
    #[serde(rename = "deadlineMs", with = "millis")]
    pub deadline: Duration,
    /// How often the command is sent before its outcome is taken as unknown; at least 1.
    pub attempts: u32,
    /// Absent: what this step did cannot be undone. Only the pivot and steps after it may lack one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compensation: Option<Compensation>,
}

/// A topic the saga writes to, and how the value of a message is put together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Outlet {
    pub topic: String,
    #[serde(rename = "type")]
    pub event_type: String,
    pub data: Template,
}

/// The fields of a message's value, by name. A pointer to something that is not there leaves its field out.
pub type Template = BTreeMap<String, Source>;

/// Where the value of one field comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Source {
    /// A place in the trigger, in the output of an earlier step, or in the saga itself.
    Pointer(Pointer),
    /// Always this value.
    Constant {
        #[serde(rename = "const")]
        value: Value,
    },
}

/// The answers to a step's command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Replies {
    pub success: Channel,
    /// Absent for a step that can only succeed, however long it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureReply>,
}

/// The reply by which a participant says no.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FailureReply {
    pub topic: String,
    #[serde(rename = "type")]
    pub event_type: String,
    /// Where in the reply's value the reason is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Pointer>,
}

/// How a step is taken back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Compensation {
    /// The step leaves nothing behind: it is never undone.
    NothingToUndo,
    /// The step is undone by a command, which must be confirmed.
    Command(Undo),
}

/// The command that undoes a step, and its only possible answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Undo {
    pub command: Outlet,
    pub reply: Channel,
    /// Time an attempt has for its answer, before the backoff.
    #[serde(rename = "deadlineMs", with = "millis")]
    pub deadline: Duration,
    /// How often the undo is sent before the saga is parked; at least 1.
    pub attempts: u32,
    /// Pause after the first attempt; doubles with each one.
    #[serde(rename = "backoffMs", with = "millis")]
    pub backoff: Duration,
    /// The pause grows no further than this.
    #[serde(rename = "maxBackoffMs", with = "millis")]
    pub max_backoff: Duration,
}

impl Undo {
    /// How long attempt number `attempt` (from 1) is waited for: its deadline and the backoff after it.
    #[must_use]
    pub fn patience(&self, attempt: u32) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        let backoff = self.backoff.saturating_mul(1 << doublings).min(self.max_backoff);
        self.deadline.saturating_add(backoff)
    }
}

/// The events by which a saga tells that it came to rest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ends {
    pub completed: Outlet,
    pub cancelled: Outlet,
    pub parked: Outlet,
}

impl Step {
    /// The undo command of this step, if it has one to send.
    #[must_use]
    pub fn undo(&self) -> Option<&Undo> {
        match &self.compensation {
            Some(Compensation::Command(undo)) => Some(undo),
            Some(Compensation::NothingToUndo) | None => None,
        }
    }
}

/// Durations are whole milliseconds in canonical JSON.
mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        // Durations are read from text that cannot hold more than u32::MAX seconds.
        serializer.serialize_u64(u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}
