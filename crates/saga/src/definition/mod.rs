//! Saga definitions: from a YAML file to a checked [`Definition`].
//!
//! ```text
//! text ─ tree ─▶ values with places ─ shape ─▶ document ─ lower ─▶ model ─ check ─▶ Definition
//! ```
//! `shape` compares with the JSON Schema that editors use, so that both accept the same files. Every stage
//! collects its findings and goes on, so that one run tells everything that is wrong.

mod canonical;
mod check;
mod diagnostic;
mod document;
mod duration;
mod graph;
mod lower;
mod model;
mod pointer;
mod schema;
mod shape;
mod spelling;
mod tree;

use std::collections::HashMap;

use serde_json::Value;
use uuid::Uuid;

use crate::machine::{Reply, ReplyKind};
pub(crate) use canonical::write_canonical;
pub use diagnostic::Diagnostic;
use diagnostic::Problems;
use graph::Graph;
use model::Body;
pub use model::{Channel, Compensation, Ends, FailureReply, Outlet, Replies, Source, Step, Template, Undo};
pub(crate) use pointer::descend;
pub use pointer::{InvalidPointer, Pointer};
pub use schema::json_schema;

/// A saga definition that passed every check. Two definitions that mean the same have the same digest,
/// however they are written.
#[derive(Clone, Debug)]
pub struct Definition {
    body: Body,
    graph: Graph,
    routes: HashMap<String, (usize, Answer)>,
    canonical: String,
    digest: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Success,
    Failure,
    Undone,
}

/// A stored definition that this program cannot run.
#[derive(Debug, thiserror::Error)]
pub enum InvalidDefinition {
    #[error("not the JSON of a saga definition this version knows")]
    Json(#[from] serde_json::Error),
    #[error("the definition breaks the rules: {}", list(.0))]
    Rules(Vec<Diagnostic>),
}

fn list(diagnostics: &[Diagnostic]) -> String {
    let messages: Vec<&str> = diagnostics.iter().map(|d| d.message.as_str()).collect();
    messages.join("; ")
}

impl Definition {
    /// Reads and checks a YAML file. `file` is only named in the diagnostics.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order of the file.
    pub fn parse(yaml: &str, file: &str) -> Result<Self, Vec<Diagnostic>> {
        let root = tree::read(yaml).map_err(|error| vec![Diagnostic::of_yaml(file, &error)])?;
        let mut problems = Problems::new(file, &root);
        let healed = shape::conform(&root, &mut problems);
        // A shape that cannot even be healed has been reported by now.
        let Some(document) = healed else { return Err(problems.into_diagnostics()) };
        let body = lower::lower(document, &mut problems);
        check::check(&body, &mut problems);
        problems.finish()?;
        Ok(Self::from_body(body))
    }

    /// Reads a definition back from what [`Self::canonical_json`] gave, in whatever order and spacing the
    /// store keeps it.
    ///
    /// # Errors
    /// When it is not such JSON, or was written by a version with features this one does not know.
    pub fn from_json(json: &str) -> Result<Self, InvalidDefinition> {
        let body: Body = serde_json::from_str(json)?;
        let mut problems = Problems::without_places(&body.saga);
        check::check(&body, &mut problems);
        problems.finish().map_err(InvalidDefinition::Rules)?;
        Ok(Self::from_body(body))
    }

    fn from_body(body: Body) -> Self {
        let graph = Graph::of(&body.steps);
        let routes = routes(&body.steps);
        let canonical = canonical::canonical_json(&body);
        let digest = canonical::digest(&canonical);
        Self { body, graph, routes, canonical, digest }
    }

    /// The name of the saga.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.body.saga
    }

    /// The version its author gave it. What an instance is pinned to is the digest.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.body.version
    }

    /// SHA-256 of the canonical JSON, as lower-case hex.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The whole definition with all defaults filled in; keys sorted, no spaces.
    #[must_use]
    pub fn canonical_json(&self) -> &str {
        &self.canonical
    }

    /// The message that starts a saga.
    #[must_use]
    pub fn trigger(&self) -> &Channel {
        &self.body.trigger
    }

    /// The steps in the order of the file.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.body.steps
    }

    /// The events at the end.
    #[must_use]
    pub fn ends(&self) -> &Ends {
        &self.body.ends
    }

    /// The step of that name, with its index.
    #[must_use]
    pub fn step(&self, name: &str) -> Option<(usize, &Step)> {
        self.body.steps.iter().enumerate().find(|(_, step)| step.name == name)
    }

    /// Every topic on which participants answer.
    pub fn reply_channels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.body.steps.iter().flat_map(answers).map(|(_, topic, event_type)| (topic, event_type))
    }

    /// Every topic the saga writes to: commands, undos and events at the end.
    pub fn sent_channels(&self) -> impl Iterator<Item = (&str, &str)> {
        let steps = self.body.steps.iter();
        let commands = steps.flat_map(|step| std::iter::once(&step.command).chain(step.undo().map(|u| &u.command)));
        let ends = [&self.body.ends.completed, &self.body.ends.cancelled, &self.body.ends.parked];
        commands.chain(ends).map(|outlet| (outlet.topic.as_str(), outlet.event_type.as_str()))
    }

    /// What a message on a reply topic says; none when no step has its answers there.
    #[must_use]
    pub fn read_reply(&self, topic: &str, message_id: Uuid, causation_id: Uuid, data: Value) -> Option<Reply> {
        let (index, answer) = *self.routes.get(topic)?;
        let step = &self.body.steps[index];
        let kind = match answer {
            Answer::Success => ReplyKind::Success,
            Answer::Undone => ReplyKind::Undone,
            Answer::Failure => ReplyKind::Failure { reason: reason(step, &data) },
        };
        Some(Reply { step: step.name.clone(), kind, message_id, causation_id, data })
    }

    pub(crate) fn graph(&self) -> &Graph {
        &self.graph
    }
}

impl PartialEq for Definition {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

fn reason(step: &Step, data: &Value) -> Option<String> {
    match step.replies.failure.as_ref()?.reason.as_ref()?.find(data)? {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

fn answers(step: &Step) -> impl Iterator<Item = (Answer, &str, &str)> {
    let success = &step.replies.success;
    let failure = step.replies.failure.as_ref();
    let undone = step.undo().map(|undo| &undo.reply);
    std::iter::once((Answer::Success, success.topic.as_str(), success.event_type.as_str()))
        .chain(failure.map(|f| (Answer::Failure, f.topic.as_str(), f.event_type.as_str())))
        .chain(undone.map(|u| (Answer::Undone, u.topic.as_str(), u.event_type.as_str())))
}

fn routes(steps: &[Step]) -> HashMap<String, (usize, Answer)> {
    let indexed = steps.iter().enumerate();
    indexed
        .flat_map(|(index, step)| answers(step).map(move |(answer, topic, _)| (topic.to_owned(), (index, answer))))
        .collect()
}
