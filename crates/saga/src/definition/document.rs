//! The file as its author writes it. These types are the source of the JSON Schema that editors use and that
//! `shape` checks with; their comments are what editors show.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::duration;

/// A saga: steps over Kafka, each with its way back.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(title = "Saga definition")]
pub(super) struct Document {
    /// Name of the saga: lower case, digits and hyphens.
    pub saga: String,
    /// The author's version of this definition, from 1.
    #[schemars(range(min = 1))]
    pub version: u32,
    /// The message that starts a saga.
    pub trigger: ChannelDoc,
    /// What holds for every step that does not say otherwise.
    #[serde(default)]
    pub defaults: DefaultsDoc,
    /// The steps. Those that do not come after each other run in parallel.
    #[schemars(length(min = 1))]
    pub steps: Vec<StepDoc>,
    /// The events by which the saga tells that it came to rest.
    pub ends: EndsDoc,
}

/// A topic and the type of its messages.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ChannelDoc {
    /// Kafka topic, without the prefix of an environment.
    pub topic: String,
    /// CloudEvents type (`ce_type`) of the messages.
    #[serde(rename = "type")]
    pub event_type: String,
}

/// Patience, for every step that does not say otherwise.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct DefaultsDoc {
    /// Time from one attempt to the next, and from the last one to giving up. 15s if not given.
    #[serde(default)]
    #[schemars(with = "Option<DurationDoc>")]
    pub deadline: Option<String>,
    /// How often a command is sent before its outcome is unknown. 4 if not given.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1000))]
    pub attempts: Option<u32>,
    /// The same for undos.
    #[serde(default)]
    pub undo: UndoDefaultsDoc,
}

/// Patience with undos.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct UndoDefaultsDoc {
    /// Time an attempt has for its answer. 15s if not given.
    #[serde(default)]
    #[schemars(with = "Option<DurationDoc>")]
    pub deadline: Option<String>,
    /// How often an undo is sent before the saga is parked. 20 if not given.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1000))]
    pub attempts: Option<u32>,
    /// Pause after the first attempt; doubles with each one. 1s if not given.
    #[serde(default)]
    #[schemars(with = "Option<DurationDoc>")]
    pub backoff: Option<String>,
    /// The pause grows no further than this. 5m if not given.
    #[serde(default)]
    #[schemars(with = "Option<DurationDoc>")]
    pub max_backoff: Option<String>,
}

/// One step.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct StepDoc {
    /// Name of the step: lower case, digits and hyphens.
    pub name: String,
    /// Steps that must have succeeded first. Without it the step begins with the saga.
    #[serde(default)]
    pub after: Vec<String>,
    /// Once this step has succeeded, the saga only goes forward. At most one step.
    #[serde(default)]
    pub pivot: bool,
    /// Time from one attempt to the next, and from the last one to giving up.
    #[serde(default)]
    #[schemars(with = "Option<DurationDoc>")]
    pub deadline: Option<String>,
    /// How often the command is sent before its outcome is unknown.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1000))]
    pub attempts: Option<u32>,
    /// What the participant is asked to do.
    pub command: OutletDoc,
    /// What it may answer.
    pub replies: RepliesDoc,
    /// How the step is undone. Only the pivot and steps after it may lack it.
    #[serde(default)]
    pub compensation: Option<CompensationDoc>,
}

/// A topic the saga writes to.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct OutletDoc {
    /// Kafka topic, without the prefix of an environment.
    pub topic: String,
    /// CloudEvents type (`ce_type`) of the messages.
    #[serde(rename = "type")]
    pub event_type: String,
    /// The fields of the value. What a pointer does not find is left out.
    #[serde(default)]
    pub data: BTreeMap<String, SourceDoc>,
}

/// Where the value of a field comes from.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum SourceDoc {
    /// JSON Pointer: /trigger/..., /steps/NAME/... (the output of an earlier step), /saga/id, and in ends
    /// /saga/version and /saga/reason.
    Pointer(#[schemars(regex(pattern = "^/"))] String),
    /// Always this value.
    Constant(ConstantDoc),
}

/// Always this value.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ConstantDoc {
    #[serde(rename = "const")]
    pub value: Value,
}

/// The answers to a command.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RepliesDoc {
    /// It was done. The value of this reply is the output of the step.
    pub success: ChannelDoc,
    /// It was refused, and nothing was done. Left out for a step that can only succeed.
    #[serde(default)]
    pub failure: Option<FailureDoc>,
}

/// The reply by which a participant says no.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct FailureDoc {
    /// Kafka topic, without the prefix of an environment.
    pub topic: String,
    /// CloudEvents type (`ce_type`) of the messages.
    #[serde(rename = "type")]
    pub event_type: String,
    /// JSON Pointer to the reason in the value of the reply.
    #[serde(default)]
    #[schemars(regex(pattern = "^/"))]
    pub reason: Option<String>,
}

/// How a step is undone.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum CompensationDoc {
    /// The step leaves nothing behind.
    Nothing(NothingDoc),
    /// By a command.
    Command(Box<UndoDoc>),
}

/// The step leaves nothing behind: it is never undone.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum NothingDoc {
    None,
}

/// The command that undoes a step, which cannot be refused.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct UndoDoc {
    /// What the participant is asked to undo.
    pub command: OutletDoc,
    /// The confirmation.
    pub reply: ChannelDoc,
    /// Time an attempt has for its answer.
    #[serde(default)]
    #[schemars(with = "Option<DurationDoc>")]
    pub deadline: Option<String>,
    /// How often the undo is sent before the saga is parked.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1000))]
    pub attempts: Option<u32>,
    /// Pause after the first attempt; doubles with each one.
    #[serde(default)]
    #[schemars(with = "Option<DurationDoc>")]
    pub backoff: Option<String>,
    /// The pause grows no further than this.
    #[serde(default)]
    #[schemars(with = "Option<DurationDoc>")]
    pub max_backoff: Option<String>,
}

/// The events at the end.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct EndsDoc {
    /// Every step succeeded.
    pub completed: OutletDoc,
    /// Every effect was undone.
    pub cancelled: OutletDoc,
    /// At rest until an operator acts.
    pub parked: OutletDoc,
}

/// A whole number and a unit: 500ms, 15s, 5m or 1h.
#[derive(JsonSchema)]
#[schemars(transparent)]
#[expect(dead_code, reason = "stands for the text of a duration in the JSON Schema")]
struct DurationDoc(#[schemars(regex(pattern = duration::PATTERN))] String);
