//! Going back: every step that did something, or may have, is undone, the later ones first.

use super::draft::Draft;
use super::state::{Phase, Saga, SagaState, StepRun};
use crate::definition::Definition;

/// Turns the saga back. Steps in flight count as unknown from now on: their answers are late.
pub(super) fn turn_back(draft: &mut Draft<'_>, cause: String) {
    draft.saga.state = SagaState::Compensating;
    draft.saga.reason = Some(cause.clone());
    draft.saga.cause = Some(cause);
    for run in &mut draft.saga.steps {
        match run.phase {
            // WAITING => SKIPPED: it was never asked for, and never will be
            Phase::Waiting => run.phase = Phase::Skipped,
            // REQUESTED => UNKNOWN: it may have been done
            Phase::Requested => run.phase = Phase::Unknown,
            // FAILED => UNKNOWN: the refusal may be one from before the operator's retry
            Phase::Failed if run.refused_before => {
                run.phase = Phase::Unknown;
                run.answered_by = None;
            }
            Phase::Succeeded | Phase::Failed | Phase::Unknown | Phase::Undoing | Phase::Undone | Phase::Skipped => {}
        }
        run.deadline = None;
    }
    advance(draft);
}

/// Sends the undo of every step whose later steps are all undone, and ends the saga after the last one.
pub(super) fn advance(draft: &mut Draft<'_>) {
    let pending: Vec<bool> = (0..draft.saga.steps.len()).map(|step| is_pending(draft, step)).collect();
    if !pending.contains(&true) {
        draft.saga.state = SagaState::Compensated;
        return;
    }
    let graph = draft.definition.graph();
    for step in 0..pending.len() {
        let first_time = pending[step] && draft.saga.steps[step].phase != Phase::Undoing;
        if first_time && !graph.descendants[step].iter().any(|later| pending[*later]) {
            draft.request_undo(step);
        }
    }
}

/// Sends every undo that is waited for again, with all its attempts before it.
pub(super) fn resume(draft: &mut Draft<'_>) {
    draft.saga.state = SagaState::Compensating;
    draft.saga.reason = draft.saga.cause.clone();
    for step in 0..draft.saga.steps.len() {
        if draft.saga.steps[step].phase == Phase::Undoing {
            draft.saga.steps[step].undo_attempts = 0;
            draft.request_undo(step);
        }
    }
}

/// Whether the saga is on its way back: undos were sent, and some are not confirmed.
pub(super) fn has_begun(saga: &Saga) -> bool {
    saga.steps.iter().any(|run| run.phase == Phase::Undoing)
}

/// Why the saga can only go forward, if so.
pub(super) fn obstacle(definition: &Definition, saga: &Saga) -> Option<String> {
    let graph = definition.graph();
    let runs = definition.steps().iter().zip(&saga.steps).enumerate();
    runs.filter(|(_, (_, run))| may_have_effect(run)).find_map(|(index, (step, run))| {
        let name = &step.name;
        if run.phase == Phase::Succeeded && graph.is_past_pivot(index) {
            Some(format!("{name} has succeeded, which is past the pivot"))
        } else if step.compensation.is_none() {
            Some(format!("{name} was requested and has no compensation"))
        } else {
            None
        }
    })
}

/// Whether the pivot has succeeded: from then on the saga does not turn back by itself.
pub(super) fn is_past_pivot(definition: &Definition, saga: &Saga) -> bool {
    definition.graph().pivot.is_some_and(|pivot| saga.steps[pivot].phase == Phase::Succeeded)
}

fn may_have_effect(run: &StepRun) -> bool {
    match run.phase {
        Phase::Requested | Phase::Succeeded | Phase::Unknown | Phase::Undoing => true,
        Phase::Failed => run.refused_before,
        Phase::Waiting | Phase::Undone | Phase::Skipped => false,
    }
}

/// Whether the undo of `step` is still to be sent or to be confirmed.
fn is_pending(draft: &Draft<'_>, step: usize) -> bool {
    let phase = draft.saga.steps[step].phase;
    let has_undo = draft.definition.steps()[step].undo().is_some();
    has_undo && matches!(phase, Phase::Succeeded | Phase::Unknown | Phase::Undoing)
}
