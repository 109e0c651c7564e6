//! A transition while it is put together.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use uuid::Uuid;

use super::message::{self, Message};
use super::state::{Phase, Saga, SagaState};
use super::timeline::{EntryKind, TimelineEntry};
use super::verdict::{Transition, Verdict};
use crate::definition::Definition;

/// The next version of a saga. Everything that changes a saga goes through here, so that each accepted
/// input makes exactly one timeline entry.
pub(super) struct Draft<'d> {
    pub(super) definition: &'d Definition,
    pub(super) saga: Saga,
    now: DateTime<Utc>,
    messages: Vec<Message>,
}

/// The timeline entry of a transition, as far as the state does not tell it.
#[derive(Default)]
pub(super) struct Note {
    pub(super) step: Option<usize>,
    pub(super) message_id: Option<Uuid>,
    pub(super) detail: Option<String>,
    pub(super) data: Option<Value>,
}

impl<'d> Draft<'d> {
    /// The version after `saga`.
    pub(super) fn after(definition: &'d Definition, saga: &Saga, now: DateTime<Utc>) -> Self {
        let mut saga = saga.clone();
        saga.version += 1;
        Self::of(definition, saga, now)
    }

    /// A version that is being made for the first time, with its number already in `saga`.
    pub(super) fn of(definition: &'d Definition, mut saga: Saga, now: DateTime<Utc>) -> Self {
        saga.updated_at = now;
        Self { definition, saga, now, messages: Vec::new() }
    }

    /// Sends the command of `step`, for the first time or again.
    pub(super) fn request(&mut self, step: usize) {
        let definition = &self.definition.steps()[step];
        let run = &mut self.saga.steps[step];
        run.phase = Phase::Requested;
        run.attempts += 1;
        run.deadline = Some(later(self.now, definition.deadline));
        run.reason = None;
        run.requested_by.get_or_insert(self.saga.version);
        let time = *run.requested_at.get_or_insert(self.now);
        self.messages.push(message::command(&self.saga, definition, time));
    }

    /// Sends the undo of `step`, for the first time or again. Steps without an undo command stay as they are.
    pub(super) fn request_undo(&mut self, step: usize) {
        let definition = &self.definition.steps()[step];
        let Some(undo) = definition.undo() else { return };
        let run = &mut self.saga.steps[step];
        run.phase = Phase::Undoing;
        run.undo_attempts += 1;
        run.deadline = Some(later(self.now, undo.patience(run.undo_attempts)));
        run.undo_requested_by.get_or_insert(self.saga.version);
        let time = *run.undo_requested_at.get_or_insert(self.now);
        self.messages.push(message::undo(&self.saga, definition, &undo.command, time));
    }

    /// Puts the saga to rest until somebody acts. What is in flight has no deadline any more; a command
    /// without answer counts as unknown, so that a late answer is nobody's surprise.
    pub(super) fn park(&mut self, reason: String) {
        self.saga.state = SagaState::Parked;
        self.saga.reason = Some(reason);
        for run in &mut self.saga.steps {
            run.deadline = None;
            if run.phase == Phase::Requested {
                run.phase = Phase::Unknown;
            }
        }
    }

    /// Moves a step to a phase in which nothing of it is in flight.
    pub(super) fn settle(&mut self, step: usize, phase: Phase) {
        let run = &mut self.saga.steps[step];
        run.phase = phase;
        run.deadline = None;
    }

    /// Closes the draft; a saga that came to rest tells so.
    pub(super) fn finish(mut self, kind: EntryKind, note: Note) -> Transition {
        self.messages.extend(message::end_event(self.definition, &self.saga));
        let entry = TimelineEntry {
            version: self.saga.version,
            at: self.now,
            kind,
            state: self.saga.state,
            step: note.step.map(|step| self.definition.steps()[step].name.clone()),
            message_id: note.message_id,
            detail: note.detail,
            data: note.data,
            emitted: self.messages.iter().map(|message| message.id).collect(),
        };
        Transition { saga: self.saga, entry, messages: self.messages }
    }

    /// [`Self::finish`], as the machine's answer.
    pub(super) fn moved(self, kind: EntryKind, note: Note) -> Verdict {
        Verdict::Moved(Box::new(self.finish(kind, note)))
    }
}

/// A time that is too far away to be written is as good as never.
fn later(now: DateTime<Utc>, wait: Duration) -> DateTime<Utc> {
    TimeDelta::from_std(wait).ok().and_then(|wait| now.checked_add_signed(wait)).unwrap_or(DateTime::<Utc>::MAX_UTC)
}
