//! Which cells there are: every step of a definition under every fault.

use std::sync::Arc;

use saga::Definition;
use saga::definition::{Compensation, Step};
use serde::Serialize;

/// What happens to the step of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// The participant fails before it has committed anything
    FailsBefore,
    /// The participant dies when its effect is committed and its reply not sent
    FailsAfterCommit,
    /// The reply does not arrive, and the command comes again
    ReplyLost,
    /// The command comes twice: in one batch, and again after its reply
    DeliveredTwice,
    /// The command and its reply go to the end of their topics, behind whatever came after them
    Reordered,
    /// The orchestrator is killed with the reply in its hands
    OrchestratorKilled,
    /// The participant is killed with the command in its hands
    ParticipantKilled,
    /// The participant fails to apply the undo, twice
    UndoFails,
    /// The undo comes twice: in one batch, and again after its reply
    UndoDeliveredTwice,
    /// The undo comes first, and the command after it
    CancelBeforeCommand,
    /// The reply comes when the saga has given up and undone the step
    ReplyAfterDeadline,
}

impl Fault {
    /// In the order of the matrix.
    pub const ALL: [Self; 11] = [
        Self::FailsBefore,
        Self::FailsAfterCommit,
        Self::ReplyLost,
        Self::DeliveredTwice,
        Self::Reordered,
        Self::OrchestratorKilled,
        Self::ParticipantKilled,
        Self::UndoFails,
        Self::UndoDeliveredTwice,
        Self::CancelBeforeCommand,
        Self::ReplyAfterDeadline,
    ];

    /// As it is written: `reply-lost`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::FailsBefore => "fails-before",
            Self::FailsAfterCommit => "fails-after-commit",
            Self::ReplyLost => "reply-lost",
            Self::DeliveredTwice => "delivered-twice",
            Self::Reordered => "reordered",
            Self::OrchestratorKilled => "orchestrator-killed",
            Self::ParticipantKilled => "participant-killed",
            Self::UndoFails => "undo-fails",
            Self::UndoDeliveredTwice => "undo-delivered-twice",
            Self::CancelBeforeCommand => "cancel-before-command",
            Self::ReplyAfterDeadline => "reply-after-deadline",
        }
    }

    /// Whether it kills a process, so that no other cell can run meanwhile.
    #[must_use]
    pub fn kills(self) -> bool {
        matches!(self, Self::FailsAfterCommit | Self::OrchestratorKilled | Self::ParticipantKilled)
    }

    /// Whether the service that reads the step's commands has to be known by name: to kill it, or to ask how far its
    /// consumer group, which has the same name, has come.
    pub(super) fn needs_participant(self) -> bool {
        let is_asked = matches!(self, Self::DeliveredTwice | Self::UndoDeliveredTwice);
        is_asked || matches!(self, Self::FailsAfterCommit | Self::ParticipantKilled)
    }

    /// Whether an operator turns the saga back at the step.
    fn turns_back(self) -> bool {
        matches!(self, Self::UndoFails | Self::UndoDeliveredTwice | Self::CancelBeforeCommand)
    }
}

/// Where the saga of a cell must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Completed,
    Compensated,
    Parked,
}

impl End {
    /// The state of the saga.
    pub(super) fn state(self) -> &'static str {
        match self {
            Self::Completed => "COMPLETED",
            Self::Compensated => "COMPENSATED",
            Self::Parked => "PARKED",
        }
    }
}

/// One step under one fault.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    pub(super) definition: Arc<Definition>,
    step: usize,
    pub(super) fault: Fault,
}

/// All cells of `definition`, in the order of its file.
pub(super) fn of(definition: &Arc<Definition>) -> Vec<Cell> {
    let steps = 0..definition.steps().len();
    let cell = |step, fault| Cell { definition: Arc::clone(definition), step, fault };
    steps.flat_map(|step| Fault::ALL.map(|fault| cell(step, fault))).collect()
}

impl Cell {
    /// The step that the fault is aimed at.
    pub(super) fn step(&self) -> &Step {
        &self.definition.steps()[self.step]
    }

    /// As people name it: `order/payment/reply-lost`.
    pub(super) fn label(&self) -> String {
        format!("{}/{}/{}", self.definition.name(), self.step().name, self.fault.name())
    }

    /// Why the definition rules out that this ever happens, if it does.
    pub(super) fn exempt(&self) -> Option<&'static str> {
        if !self.fault.turns_back() {
            None
        } else if self.is_after_pivot() {
            Some("it comes after the pivot, and from there a saga only goes forward")
        } else if self.step().undo().is_none() {
            Some("its definition has no undo")
        } else {
            None
        }
    }

    /// Where its saga must end.
    pub(super) fn end(&self) -> End {
        let has_way_back = self.step().compensation.is_some() && !self.is_after_pivot();
        match self.fault {
            fault if fault.turns_back() => End::Compensated,
            Fault::ReplyAfterDeadline if has_way_back => End::Compensated,
            Fault::ReplyAfterDeadline => End::Parked,
            _ => End::Completed,
        }
    }

    /// How often the step must have taken effect and been undone.
    pub(super) fn effects(&self) -> (i64, i64) {
        match self.fault {
            Fault::CancelBeforeCommand => (0, 0),
            _ if self.end() != End::Compensated => (1, 0),
            _ if self.step().compensation == Some(Compensation::NothingToUndo) => (1, 0),
            _ => (1, 1),
        }
    }

    fn is_after_pivot(&self) -> bool {
        let pivot = self.definition.steps().iter().find(|step| step.pivot);
        pivot.is_some_and(|pivot| comes_after(&self.definition, self.step(), &pivot.name))
    }
}

/// Whether `step` waits for `earlier`, itself or through others.
fn comes_after(definition: &Definition, step: &Step, earlier: &str) -> bool {
    step.after.iter().any(|name| {
        let waits = definition.step(name).is_some_and(|(_, before)| comes_after(definition, before, earlier));
        name == earlier || waits
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIP: &str = "
saga: trip
version: 1
trigger: { topic: trip.booked, type: t.v1 }
steps:
  - name: look
    command: { topic: look.requested, type: a.v1, data: {} }
    replies: { success: { topic: look.done, type: b.v1 } }
    compensation: none
  - name: pay
    after: [look]
    pivot: true
    command: { topic: pay.requested, type: c.v1, data: {} }
    replies: { success: { topic: pay.done, type: d.v1 } }
  - name: tell
    after: [pay]
    command: { topic: tell.requested, type: e.v1, data: {} }
    replies: { success: { topic: tell.done, type: f.v1 } }
ends:
  completed: { topic: trip.completed, type: g.v1, data: {} }
  cancelled: { topic: trip.cancelled, type: h.v1, data: {} }
  parked: { topic: trip.parked, type: i.v1, data: {} }
";

    fn cell(step: &str, fault: Fault) -> Cell {
        let definition = Arc::new(Definition::parse(TRIP, "trip.yaml").expect("a definition"));
        let mut cells = of(&definition).into_iter();
        cells.find(|cell| cell.step().name == step && cell.fault == fault).expect("a cell")
    }

    #[test]
    fn every_step_has_a_cell_for_every_fault_and_says_where_it_ends() {
        let definition = Arc::new(Definition::parse(TRIP, "trip.yaml").expect("a definition"));
        assert_eq!(of(&definition).len(), 3 * Fault::ALL.len());
        assert_eq!(cell("look", Fault::ReplyAfterDeadline).end(), End::Compensated);
        assert_eq!(cell("pay", Fault::ReplyAfterDeadline).end(), End::Parked);
        assert_eq!(cell("tell", Fault::ReplyAfterDeadline).end(), End::Parked);
        assert_eq!(cell("pay", Fault::ReplyLost).end(), End::Completed);
    }

    #[test]
    fn only_a_definition_without_a_way_back_excuses_a_cell() {
        let exempt = |step, fault| cell(step, fault).exempt().is_some();
        assert!(exempt("look", Fault::UndoFails) && exempt("tell", Fault::CancelBeforeCommand));
        assert!(Fault::ALL.into_iter().filter(|fault| !fault.turns_back()).all(|fault| !exempt("tell", fault)));
    }
}
