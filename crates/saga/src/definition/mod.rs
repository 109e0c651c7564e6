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

/// Which of a step's answers a topic carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
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

    /// Which step has its answers on `topic`, by index, and which of them are there.
    pub(crate) fn route(&self, topic: &str) -> Option<(usize, Answer)> {
        self.routes.get(topic).copied()
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
