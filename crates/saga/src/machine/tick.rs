//! What a deadline does: the same message again, and after the last attempt the way back or to rest.

use chrono::{DateTime, Utc};

use super::compensate;
use super::draft::{Draft, Note};
use super::outstanding::earliest_deadline;
use super::state::{Phase, Saga};
use super::timeline::EntryKind;
use super::verdict::Verdict;
use crate::definition::Definition;

pub(super) fn apply(definition: &Definition, saga: &Saga, now: DateTime<Utc>) -> Verdict {
    let due = earliest_deadline(saga).filter(|(deadline, _)| *deadline <= now);
    let Some((_, step)) = due else { return Verdict::NothingDue };
    let draft = Draft::after(definition, saga, now);
    match saga.steps[step].phase {
        Phase::Undoing => undo_is_late(draft, step),
        _ => command_is_late(draft, step),
    }
}

fn command_is_late(mut draft: Draft<'_>, step: usize) -> Verdict {
    let definition = &draft.definition.steps()[step];
    let attempts = draft.saga.steps[step].attempts;
    if attempts < definition.attempts {
        // RUNNING => RUNNING
        draft.request(step);
        let detail = format!("attempt {} of {}", attempts + 1, definition.attempts);
        return draft.moved(EntryKind::StepRetried, note(step, detail));
    }
    let reason = format!("no answer in {}", counted(attempts));
    let why = format!("{}: {reason}", definition.name);
    draft.settle(step, Phase::Unknown);
    draft.saga.steps[step].reason = Some(reason.clone());
    let no_way_back = definition.compensation.is_none();
    if no_way_back || compensate::is_past_pivot(draft.definition, &draft.saga) {
        // RUNNING => PARKED
        draft.park(why);
    } else {
        // RUNNING => COMPENSATING | COMPENSATED
        compensate::turn_back(&mut draft, why);
    }
    draft.moved(EntryKind::StepTimedOut, note(step, reason))
}

fn undo_is_late(mut draft: Draft<'_>, step: usize) -> Verdict {
    let definition = &draft.definition.steps()[step];
    let attempts = draft.saga.steps[step].undo_attempts;
    let allowed = definition.undo().map_or(0, |undo| undo.attempts);
    if attempts < allowed {
        // COMPENSATING => COMPENSATING
        draft.request_undo(step);
        let detail = format!("attempt {} of {allowed}", attempts + 1);
        return draft.moved(EntryKind::UndoRetried, note(step, detail));
    }
    // COMPENSATING => PARKED
    let reason = format!("undo not confirmed in {}", counted(attempts));
    draft.park(format!("{}: {reason}", definition.name));
    draft.moved(EntryKind::UndoTimedOut, note(step, reason))
}

fn counted(attempts: u32) -> String {
    if attempts == 1 { "1 attempt".to_owned() } else { format!("{attempts} attempts") }
}

fn note(step: usize, detail: String) -> Note {
    Note { step: Some(step), detail: Some(detail), ..Note::default() }
}
