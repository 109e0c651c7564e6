//! What an operator can do. A verb that is not possible now is refused and leaves no trace.

use chrono::{DateTime, Utc};

use super::compensate;
use super::draft::{Draft, Note};
use super::state::{Phase, Saga, SagaState};
use super::timeline::EntryKind;
use super::verdict::{Outcome, Verdict};
use crate::definition::Definition;

pub(super) fn retry(definition: &Definition, saga: &Saga, by: &str, now: DateTime<Utc>) -> Verdict {
    if saga.state != SagaState::Parked {
        return refused("retry", saga, "only a parked saga can be retried");
    }
    let mut draft = Draft::after(definition, saga, now);
    if compensate::has_begun(saga) {
        // PARKED => COMPENSATING
        compensate::resume(&mut draft);
    } else {
        // PARKED => RUNNING
        go_on_forward(&mut draft);
    }
    draft.moved(EntryKind::OperatorRetried, note(format!("by {by}")))
}

/// Asks again for every step that was refused or given up, with all its attempts before it.
fn go_on_forward(draft: &mut Draft<'_>) {
    draft.saga.state = SagaState::Running;
    draft.saga.reason = None;
    for step in 0..draft.saga.steps.len() {
        let run = &mut draft.saga.steps[step];
        if !matches!(run.phase, Phase::Failed | Phase::Unknown) {
            continue;
        }
        run.refused_before |= run.phase == Phase::Failed;
        run.answered_by = None;
        run.attempts = 0;
        draft.request(step);
    }
}

pub(super) fn compensate(
    definition: &Definition,
    saga: &Saga,
    by: &str,
    reason: Option<&str>,
    now: DateTime<Utc>,
) -> Verdict {
    let past_pivot = compensate::is_past_pivot(definition, saga);
    match saga.state {
        SagaState::Running if past_pivot => {
            return refused("compensate", saga, "the pivot has succeeded: it only goes forward");
        }
        SagaState::Running | SagaState::Parked => {}
        SagaState::Compensating | SagaState::Completed | SagaState::Compensated => {
            return refused("compensate", saga, "only a running or parked saga can be turned back");
        }
    }
    let why = match reason {
        Some(reason) => format!("by {by}: {reason}"),
        None => format!("by {by}"),
    };
    let mut draft = Draft::after(definition, saga, now);
    if compensate::has_begun(saga) {
        // PARKED => COMPENSATING: it is on its way back already
        compensate::resume(&mut draft);
    } else if let Some(obstacle) = compensate::obstacle(definition, saga) {
        return refused("compensate", saga, &obstacle);
    } else {
        // RUNNING | PARKED => COMPENSATING | COMPENSATED
        compensate::turn_back(&mut draft, format!("compensated {why}"));
    }
    draft.moved(EntryKind::OperatorCompensated, note(why))
}

pub(super) fn resolve(
    definition: &Definition,
    saga: &Saga,
    outcome: Outcome,
    reason: &str,
    by: &str,
    now: DateTime<Utc>,
) -> Verdict {
    if saga.state != SagaState::Parked {
        return refused("resolve", saga, "only a parked saga can be resolved");
    }
    let mut draft = Draft::after(definition, saga, now);
    // PARKED => COMPLETED | COMPENSATED
    draft.saga.state = match outcome {
        Outcome::Completed => SagaState::Completed,
        Outcome::Cancelled => SagaState::Compensated,
    };
    draft.saga.reason = Some(format!("resolved by {by}: {reason}"));
    draft.moved(EntryKind::OperatorResolved, note(format!("by {by}: {reason}")))
}

fn refused(verb: &str, saga: &Saga, why: &str) -> Verdict {
    Verdict::Refused(format!("cannot {verb} a saga that is {}: {why}", saga.state))
}

fn note(detail: String) -> Note {
    Note { detail: Some(detail), ..Note::default() }
}
