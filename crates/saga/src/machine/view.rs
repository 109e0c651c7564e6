//! A step as people and the API see it.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;

use super::state::{Phase, Saga};
use crate::definition::Definition;

/// One step of a saga, for reading.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StepView {
    pub name: String,
    pub state: Phase,
    /// How often the command was sent since the start or the last retry by an operator.
    pub attempts: u32,
    /// The same for the undo.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undo_attempts: Option<u32>,
    /// When the attempt in flight is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// Why it failed or was given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The steps of `saga` in the order of its definition.
#[must_use]
pub fn step_view(definition: &Definition, saga: &Saga) -> Vec<StepView> {
    let steps = definition.steps().iter().zip(&saga.steps);
    steps
        .map(|(step, run)| StepView {
            name: step.name.clone(),
            state: run.phase,
            attempts: run.attempts,
            undo_attempts: Some(run.undo_attempts).filter(|n| *n > 0),
            deadline: run.deadline,
            output: saga.outputs.get(&step.name).map(|output| (**output).clone()),
            reason: run.reason.clone(),
        })
        .collect()
}
