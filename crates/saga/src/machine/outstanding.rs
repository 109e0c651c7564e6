//! What has been sent and is not answered, made again from the state.

use chrono::{DateTime, Utc};

use super::message::{self, Message};
use super::state::{Phase, Saga, StepRun};
use crate::definition::{Definition, Step};

/// Everything unanswered, or, once the saga is at rest, the event that tells so. The same messages as the
/// first time, byte for byte.
#[must_use]
pub fn outstanding(definition: &Definition, saga: &Saga) -> Vec<Message> {
    if saga.state.is_at_rest() {
        return message::end_event(definition, saga).into_iter().collect();
    }
    unanswered(definition, saga).map(|(_, message)| message).collect()
}

/// What the transition to `version` sent and is still unanswered, or the event at the end if that
/// transition brought the saga to rest.
pub(super) fn emitted_by(definition: &Definition, saga: &Saga, version: u32) -> Vec<Message> {
    let in_flight = unanswered(definition, saga).filter(|(sent_by, _)| *sent_by == Some(version));
    let mut messages: Vec<Message> = match saga.state.is_terminal() {
        // what a resolved saga still waited for is not asked for again
        true => Vec::new(),
        false => in_flight.map(|(_, message)| message).collect(),
    };
    if saga.version == version {
        messages.extend(message::end_event(definition, saga));
    }
    messages
}

/// The time of the next deadline; none at rest.
#[must_use]
pub fn next_deadline(saga: &Saga) -> Option<DateTime<Utc>> {
    earliest_deadline(saga).map(|(deadline, _)| deadline)
}

/// The next deadline and its step; of equal ones, the first step's.
pub(super) fn earliest_deadline(saga: &Saga) -> Option<(DateTime<Utc>, usize)> {
    saga.steps.iter().enumerate().filter_map(|(step, run)| Some((run.deadline?, step))).min()
}

/// The commands and undos in flight, each with the version that first sent it.
fn unanswered<'a>(definition: &'a Definition, saga: &'a Saga) -> impl Iterator<Item = (Option<u32>, Message)> + 'a {
    let runs = definition.steps().iter().zip(&saga.steps);
    runs.filter_map(|(step, run)| in_flight(saga, step, run))
}

fn in_flight(saga: &Saga, step: &Step, run: &StepRun) -> Option<(Option<u32>, Message)> {
    match run.phase {
        Phase::Requested => Some((run.requested_by, message::command(saga, step, run.requested_at?))),
        Phase::Undoing => {
            let outlet = &step.undo()?.command;
            Some((run.undo_requested_by, message::undo(saga, step, outlet, run.undo_requested_at?)))
        }
        _ => None,
    }
}
