//! Going forward: a step is requested once every step it comes after has succeeded.

use super::draft::Draft;
use super::state::{Phase, SagaState};

/// Requests every step that has become ready, and completes the saga after the last one.
pub(super) fn advance(draft: &mut Draft<'_>) {
    if draft.saga.steps.iter().all(|run| run.phase == Phase::Succeeded) {
        draft.saga.state = SagaState::Completed;
        return;
    }
    for step in 0..draft.saga.steps.len() {
        if is_ready(draft, step) {
            draft.request(step);
        }
    }
}

fn is_ready(draft: &Draft<'_>, step: usize) -> bool {
    let steps = &draft.saga.steps;
    let mut required = draft.definition.graph().requires[step].iter();
    steps[step].phase == Phase::Waiting && required.all(|earlier| steps[*earlier].phase == Phase::Succeeded)
}
