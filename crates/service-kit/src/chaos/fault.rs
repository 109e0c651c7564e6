use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// A fault as it is announced on the topic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FaultRecord {
    /// Its identity; the key of the record.
    pub id: Uuid,
    /// Whom it concerns.
    pub target: Target,
    /// What is done to them.
    pub fault: Fault,
    /// How many of their messages.
    #[serde(default)]
    pub blast_radius: BlastRadius,
    /// Decides which messages: the same seed and the same messages give the same victims.
    #[serde(default)]
    pub seed: u64,
    /// It ends here, by the clock of the instance that obeys it, and 15 minutes after its announcement at the latest,
    /// whatever else happens.
    pub expires_at: DateTime<Utc>,
}

/// Whom a fault concerns. What is absent or `*` matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Target {
    /// A service's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// One instance of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// The topic a message is read from; for `drop-reply`, the one it is written to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// The saga's step that a message belongs to (`ce_step`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The variant whose topic it is. With one named, `topic` may be the name that both variants share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<Variant>,
    /// The definition of the saga that a message belongs to (`ce_sagadefinition`: on commands and end events).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<String>,
}

/// Which of two versions of a service a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Variant {
    /// The one that everybody gets.
    Stable,
    /// The one on trial; its topics end in `.canary`.
    Canary,
}

/// How many of the messages that match the target are hit. All conditions hold together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BlastRadius {
    /// The share that is hit, 0 to 100, drawn by the seed.
    pub percentage: f64,
    /// Only messages with these keys (order ids); none named: all.
    pub keys: Vec<String>,
    /// Only messages that have each of these headers with this value.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Only the first so many in each instance, also if the fault is announced again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<u64>,
    /// Only every so manieth that matches in each instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every: Option<u64>,
}

impl Default for BlastRadius {
    fn default() -> Self {
        BlastRadius { percentage: 100.0, keys: Vec::new(), headers: BTreeMap::new(), first: None, every: None }
    }
}

/// What is done to a message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Fault {
    /// Its batch waits before it is handled, `duration` give or take up to `jitter`.
    Latency {
        /// The middle of the wait.
        duration: Millis,
        /// How far a wait may differ from it; drawn by the seed.
        #[serde(default)]
        jitter: Millis,
    },
    /// Applying it fails.
    Error {
        /// Whether waiting can help.
        kind: ErrorKind,
        /// A transient error is over after so many attempts.
        #[serde(default = "one")]
        attempts: u32,
    },
    /// It is read and nothing happens, as if it had never arrived.
    DropMessage,
    /// It is not sent after its transaction was committed, and counts as sent.
    DropReply,
    /// It is handled again in the same batch, after all others.
    Duplicate {
        /// How many times more.
        #[serde(default = "one")]
        copies: u32,
    },
    /// It goes to the end of its topic, once, and what came after it is handled before it. One that is nearly as large
    /// as a topic allows stays where it is.
    Reorder,
    /// Part of it arrives broken.
    Corrupt {
        /// Which part.
        part: Corrupted,
    },
    /// The consumer takes nothing while the fault lasts.
    PauseConsumer,
    /// Every message takes so long more.
    SlowConsumer {
        /// The time for each.
        per_message: Millis,
    },
}

/// What kind of error an attempt ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// As if a dependency was unavailable: the batch waits and is tried again.
    Transient,
    /// As if it could never be applied: it becomes a dead letter.
    Permanent,
}

/// The part of a message that arrives broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Corrupted {
    /// Half of the value, and a byte that is no UTF-8.
    Payload,
    /// `ce_id` is no UUID.
    Header,
    /// A key that is not the subject.
    Key,
}

impl Fault {
    /// How many attempts at a message fail: of an error that lasts every one (`None`), of other faults none.
    pub(super) fn failing_attempts(&self) -> Option<u32> {
        match self {
            Fault::Error { kind: ErrorKind::Permanent, .. } => None,
            Fault::Error { kind: ErrorKind::Transient, attempts } => Some(*attempts),
            _ => Some(0),
        }
    }

    /// Its name in the catalogue: `drop-message`.
    pub fn name(&self) -> &'static str {
        match self {
            Fault::Latency { .. } => "latency",
            Fault::Error { .. } => "error",
            Fault::DropMessage => "drop-message",
            Fault::DropReply => "drop-reply",
            Fault::Duplicate { .. } => "duplicate",
            Fault::Reorder => "reorder",
            Fault::Corrupt { .. } => "corrupt",
            Fault::PauseConsumer => "pause-consumer",
            Fault::SlowConsumer { .. } => "slow-consumer",
        }
    }
}

fn one() -> u32 {
    1
}

/// A time of the form `800ms`, `2s`, `1m`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Millis(pub u64);

impl From<Millis> for Duration {
    fn from(Millis(millis): Millis) -> Self {
        Duration::from_millis(millis)
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration((*self).into()).fmt(f)
    }
}

impl Serialize for Millis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let duration = humantime::parse_duration(&text)
            .map_err(|error| D::Error::custom(format!("{text:?} is no duration such as 800ms, 2s, 1m: {error}")))?;
        u64::try_from(duration.as_millis()).map(Millis).map_err(D::Error::custom)
    }
}
