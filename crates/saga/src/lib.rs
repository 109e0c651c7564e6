//! Sagas as data and as a pure function.
//!
//! A [`Definition`] says which commands a saga sends, which answers it waits for, and how each step is
//! undone. The [`machine`] runs an instance of it: every input gives a new state, one timeline entry and the
//! messages to send. There is no clock, no randomness and no I/O in here; times and ids come in as inputs.

pub mod definition;
pub mod ids;
pub mod machine;

pub use definition::{Definition, Diagnostic, InvalidDefinition, json_schema};
pub use machine::{
    EntryKind, IgnoredReason, Input, Message, Outcome, Phase, PoisonReason, Reply, ReplyKind, Saga, SagaState, StepRun,
    StepView, TimelineEntry, Transition, Verdict, apply, legal_path, next_deadline, outstanding, start, step_view,
};
