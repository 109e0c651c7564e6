//! What an answer does: taken once, answered again when it comes again, ignored when it comes late.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::draft::{Draft, Note};
use super::outstanding::emitted_by;
use super::state::{Phase, Saga, SagaState, StepRun};
use super::timeline::EntryKind;
use super::verdict::{IgnoredReason, PoisonReason, Reply, ReplyKind, Verdict};
use super::{compensate, forward};
use crate::definition::{Definition, Step};
use crate::ids;

/// Reasons come from participants, and end up in rows and events: longer ones are cut.
const MAX_REASON_CHARS: usize = 500;

pub(super) fn apply(definition: &Definition, saga: &Saga, reply: &Reply, now: DateTime<Utc>) -> Verdict {
    let Some((index, step)) = definition.step(&reply.step) else {
        return Verdict::Poison(PoisonReason::UnknownStep);
    };
    let run = &saga.steps[index];
    if let Err(reason) = answers_a_command(saga, step, run, reply) {
        return Verdict::Poison(reason);
    }
    if let Some(verdict) = not_waited_for(definition, saga, run, &reply.kind) {
        return verdict;
    }
    let draft = Draft::after(definition, saga, now);
    match &reply.kind {
        ReplyKind::Success => succeed(draft, index, reply),
        ReplyKind::Failure { reason } => fail(draft, index, reply, reason.as_deref()),
        ReplyKind::Undone => undone(draft, index, reply),
    }
}

/// Only an answer to a command that this saga did send can be an answer.
fn answers_a_command(saga: &Saga, step: &Step, run: &StepRun, reply: &Reply) -> Result<(), PoisonReason> {
    let command = ids::command_id(saga.id, &step.name);
    let undo = ids::undo_id(saga.id, &step.name);
    let (has_reply, expected, sent) = match reply.kind {
        ReplyKind::Success => (true, command, run.requested_by),
        ReplyKind::Failure { .. } => (step.replies.failure.is_some(), command, run.requested_by),
        ReplyKind::Undone => (step.undo().is_some(), undo, run.undo_requested_by),
    };
    if !has_reply {
        Err(PoisonReason::UnknownReply)
    } else if reply.causation_id != expected {
        Err(PoisonReason::UnexpectedCausation)
    } else if sent.is_none() {
        Err(PoisonReason::NeverAsked)
    } else {
        Ok(())
    }
}

/// The verdict on an answer nobody waits for any more; none for one that is waited for.
fn not_waited_for(definition: &Definition, saga: &Saga, run: &StepRun, kind: &ReplyKind) -> Option<Verdict> {
    let waited_for = match kind {
        ReplyKind::Success | ReplyKind::Failure { .. } => Phase::Requested,
        ReplyKind::Undone => Phase::Undoing,
    };
    if run.phase == waited_for && !saga.state.is_terminal() {
        return None;
    }
    let failed = run.phase == Phase::Failed;
    Some(match (kind, run.answered_by, run.undone_by) {
        // taken before: what it caused is sent again
        (ReplyKind::Undone, _, Some(version)) => Verdict::Duplicate(emitted_by(definition, saga, version)),
        (ReplyKind::Success, Some(version), _) if !failed => Verdict::Duplicate(emitted_by(definition, saga, version)),
        (ReplyKind::Failure { .. }, Some(version), _) if failed => {
            Verdict::Duplicate(emitted_by(definition, saga, version))
        }
        // the first answer counts
        (ReplyKind::Success | ReplyKind::Failure { .. }, Some(_), _) => Verdict::Ignored(IgnoredReason::Contradicting),
        _ if saga.state.is_terminal() => Verdict::Ignored(IgnoredReason::Ended),
        // given up: undone, about to be, or at rest until an operator has it sent again
        _ => Verdict::Ignored(IgnoredReason::Late),
    })
}

/// RUNNING => RUNNING | COMPLETED
fn succeed(mut draft: Draft<'_>, step: usize, reply: &Reply) -> Verdict {
    draft.settle(step, Phase::Succeeded);
    draft.saga.steps[step].answered_by = Some(draft.saga.version);
    draft.saga.outputs.insert(reply.step.clone(), Arc::new(reply.data.clone()));
    forward::advance(&mut draft);
    let note = Note { data: Some(reply.data.clone()), ..note(step, reply) };
    draft.moved(EntryKind::StepSucceeded, note)
}

/// RUNNING => COMPENSATING | COMPENSATED, or PARKED past the pivot
fn fail(mut draft: Draft<'_>, step: usize, reply: &Reply, reason: Option<&str>) -> Verdict {
    let reason: String = reason.unwrap_or("no reason given").chars().take(MAX_REASON_CHARS).collect();
    draft.settle(step, Phase::Failed);
    let run = &mut draft.saga.steps[step];
    run.answered_by = Some(draft.saga.version);
    run.reason = Some(reason.clone());
    let why = format!("{} failed: {reason}", reply.step);
    if compensate::is_past_pivot(draft.definition, &draft.saga) {
        draft.park(why);
    } else {
        compensate::turn_back(&mut draft, why);
    }
    draft.moved(EntryKind::StepFailed, Note { detail: Some(reason), ..note(step, reply) })
}

/// COMPENSATING => COMPENSATING | COMPENSATED; PARKED => COMPENSATING | COMPENSATED, since the participant
/// that was silent answers again
fn undone(mut draft: Draft<'_>, step: usize, reply: &Reply) -> Verdict {
    draft.settle(step, Phase::Undone);
    draft.saga.steps[step].undone_by = Some(draft.saga.version);
    if draft.saga.state == SagaState::Parked {
        compensate::resume(&mut draft);
    }
    compensate::advance(&mut draft);
    draft.moved(EntryKind::StepUndone, note(step, reply))
}

fn note(step: usize, reply: &Reply) -> Note {
    Note { step: Some(step), message_id: Some(reply.message_id), ..Note::default() }
}
