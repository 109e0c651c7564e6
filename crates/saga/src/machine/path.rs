//! Whether a timeline is a legal path through its definition.
//!
//! Written apart from the machine on purpose: it replays the rules from the entries alone and shares no
//! transition with the code that wrote them, so that a mistake there does not hide itself here.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::state::{Phase, SagaState};
use super::timeline::{EntryKind, TimelineEntry};
use crate::definition::{Compensation, Definition};
use crate::ids;

/// Where a timeline breaks the rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("timeline entry {version}: {message}")]
pub struct PathError {
    /// The version that should have been there, or is wrong.
    pub version: u32,
    pub message: String,
}

/// Checks that the versions are 1..n without a gap, that each entry was possible after the one before, that
/// each sent exactly the messages it should, and that nothing comes after the end. Returns the state in which
/// the saga then is.
///
/// # Errors
/// The first entry that breaks a rule.
pub fn legal_path(definition: &Definition, saga: Uuid, timeline: &[TimelineEntry]) -> Result<SagaState, PathError> {
    let mut replay = Replay::new(definition);
    for (version, entry) in (1..).zip(timeline) {
        let checked = if entry.version == version {
            replay.take(entry).and_then(|()| replay.compare(saga, entry))
        } else {
            Err(format!("has version {}", entry.version))
        };
        checked.map_err(|message| PathError { version, message })?;
    }
    replay.state.ok_or_else(|| PathError { version: 1, message: "is missing: the timeline is empty".to_owned() })
}

struct Replay<'d> {
    definition: &'d Definition,
    /// None before the start.
    state: Option<SagaState>,
    steps: Vec<Track>,
    /// What the entry at hand must have sent.
    sent: BTreeSet<(usize, Direction)>,
}

#[derive(Clone, Default)]
struct Track {
    phase: Phase,
    attempts: u32,
    refused_before: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Direction {
    Do,
    Undo,
}

type Checked = Result<(), String>;

impl<'d> Replay<'d> {
    fn new(definition: &'d Definition) -> Self {
        let steps = vec![Track::default(); definition.steps().len()];
        Self { definition, state: None, steps, sent: BTreeSet::new() }
    }

    fn take(&mut self, entry: &TimelineEntry) -> Checked {
        self.sent.clear();
        if self.state.is_some_and(SagaState::is_terminal) {
            return Err(format!("{} after the end", entry.kind));
        }
        if (entry.kind == EntryKind::Started) != self.state.is_none() {
            return Err(format!("{} at the wrong place", entry.kind));
        }
        match entry.kind {
            EntryKind::Started => self.go_forward(),
            EntryKind::StepSucceeded => {
                let step = self.step(entry, Phase::Requested)?;
                self.steps[step].phase = Phase::Succeeded;
                self.go_forward();
            }
            EntryKind::StepFailed => {
                let step = self.step(entry, Phase::Requested)?;
                require(self.definition.steps()[step].replies.failure.is_some(), "a step that cannot fail failed")?;
                self.steps[step].phase = Phase::Failed;
                self.turn_back_or_park(self.pivot_succeeded());
            }
            EntryKind::StepRetried => {
                let step = self.step(entry, Phase::Requested)?;
                require(self.steps[step].attempts < self.definition.steps()[step].attempts, "too many attempts")?;
                self.send(step, Direction::Do);
            }
            EntryKind::StepTimedOut => {
                let step = self.step(entry, Phase::Requested)?;
                let allowed = self.definition.steps()[step].attempts;
                require(self.steps[step].attempts == allowed, "given up before the last attempt")?;
                self.steps[step].phase = Phase::Unknown;
                let cannot_be_undone = self.definition.steps()[step].compensation.is_none();
                self.turn_back_or_park(cannot_be_undone || self.pivot_succeeded());
            }
            EntryKind::StepUndone => {
                let step = self.step(entry, Phase::Undoing)?;
                self.steps[step].phase = Phase::Undone;
                if self.state == Some(SagaState::Parked) {
                    self.send_undos_again();
                }
                self.go_back();
            }
            EntryKind::UndoRetried => {
                let step = self.moving_undo(entry)?;
                require(self.steps[step].attempts < self.undo_attempts(step), "too many attempts to undo")?;
                self.send(step, Direction::Undo);
            }
            EntryKind::UndoTimedOut => {
                let step = self.moving_undo(entry)?;
                let last = self.steps[step].attempts == self.undo_attempts(step);
                require(last, "undo given up before the last attempt")?;
                self.state = Some(SagaState::Parked);
            }
            EntryKind::OperatorRetried => {
                self.parked()?;
                if self.any(Phase::Undoing) { self.send_undos_again() } else { self.send_commands_again() }
            }
            EntryKind::OperatorCompensated => self.operator_compensated()?,
            EntryKind::OperatorResolved => {
                self.parked()?;
                require(entry.state.is_terminal(), "resolved to a state that is no end")?;
                self.state = Some(entry.state);
            }
        }
        Ok(())
    }

    /// Compares what the entry says with what follows from the entries so far.
    fn compare(&self, saga: Uuid, entry: &TimelineEntry) -> Checked {
        if self.state != Some(entry.state) {
            let expected = self.state.map_or("not started", SagaState::as_str);
            return Err(format!("{} leads to {expected}, not to {}", entry.kind, entry.state));
        }
        let mut expected: BTreeSet<Uuid> = self.sent.iter().map(|sent| self.message_id(saga, *sent)).collect();
        let ends = self.definition.ends();
        let end = match entry.state {
            SagaState::Completed => Some(&ends.completed),
            SagaState::Compensated => Some(&ends.cancelled),
            SagaState::Parked => Some(&ends.parked),
            SagaState::Running | SagaState::Compensating => None,
        };
        expected.extend(end.map(|outlet| ids::end_event_id(saga, &outlet.topic, entry.version)));
        let emitted: BTreeSet<Uuid> = entry.emitted.iter().copied().collect();
        require(emitted == expected, &format!("{} sent other messages than it should", entry.kind))?;
        require(emitted.len() == entry.emitted.len(), "names a message twice")
    }

    fn message_id(&self, saga: Uuid, (step, direction): (usize, Direction)) -> Uuid {
        let name = &self.definition.steps()[step].name;
        match direction {
            Direction::Do => ids::command_id(saga, name),
            Direction::Undo => ids::undo_id(saga, name),
        }
    }

    /// The step the entry is about, which must be in `phase`.
    fn step(&self, entry: &TimelineEntry, phase: Phase) -> Result<usize, String> {
        let name = entry.step.as_deref().ok_or_else(|| format!("{} names no step", entry.kind))?;
        let (step, _) = self.definition.step(name).ok_or_else(|| format!("there is no step {name}"))?;
        let found = self.steps[step].phase;
        require(found == phase, &format!("{} of {name}, which is {found}", entry.kind))?;
        Ok(step)
    }

    fn moving_undo(&self, entry: &TimelineEntry) -> Result<usize, String> {
        require(self.state == Some(SagaState::Compensating), &format!("{} while not compensating", entry.kind))?;
        self.step(entry, Phase::Undoing)
    }

    fn parked(&self) -> Checked {
        require(self.state == Some(SagaState::Parked), "only a parked saga can be retried or resolved")
    }

    fn operator_compensated(&mut self) -> Checked {
        let possible = matches!(self.state, Some(SagaState::Running | SagaState::Parked));
        require(possible, "only a running or parked saga can be turned back")?;
        if self.any(Phase::Undoing) {
            self.send_undos_again();
            return Ok(());
        }
        require(self.state != Some(SagaState::Running) || !self.pivot_succeeded(), "turned back past the pivot")?;
        for (step, track) in self.steps.iter().enumerate() {
            let touched = matches!(track.phase, Phase::Requested | Phase::Succeeded | Phase::Unknown)
                || (track.phase == Phase::Failed && track.refused_before);
            let can_be_undone = self.definition.steps()[step].compensation.is_some();
            require(!touched || can_be_undone, "turned back though a step cannot be undone")?;
            let done_past_pivot = track.phase == Phase::Succeeded && self.definition.graph().is_past_pivot(step);
            require(!done_past_pivot, "turned back though a step past the pivot has succeeded")?;
        }
        self.turn_back_or_park(false);
        Ok(())
    }

    fn go_forward(&mut self) {
        self.state = Some(SagaState::Running);
        for step in 0..self.steps.len() {
            let earlier = &self.definition.graph().requires[step];
            let ready = earlier.iter().all(|earlier| self.steps[*earlier].phase == Phase::Succeeded);
            if ready && self.steps[step].phase == Phase::Waiting {
                self.steps[step].attempts = 0;
                self.send(step, Direction::Do);
            }
        }
        if self.steps.iter().all(|track| track.phase == Phase::Succeeded) {
            self.state = Some(SagaState::Completed);
        }
    }

    fn turn_back_or_park(&mut self, park: bool) {
        for track in &mut self.steps {
            track.phase = match track.phase {
                Phase::Requested => Phase::Unknown,
                Phase::Waiting if !park => Phase::Skipped,
                Phase::Failed if !park && track.refused_before => Phase::Unknown,
                same => same,
            };
        }
        if park {
            self.state = Some(SagaState::Parked);
        } else {
            self.go_back();
        }
    }

    fn go_back(&mut self) {
        let open: Vec<usize> = (0..self.steps.len()).filter(|step| self.is_to_be_undone(*step)).collect();
        self.state = Some(if open.is_empty() { SagaState::Compensated } else { SagaState::Compensating });
        for &step in &open {
            let blocked = open.iter().any(|later| self.definition.graph().is_after(*later, step));
            if !blocked && self.steps[step].phase != Phase::Undoing {
                self.steps[step].attempts = 0;
                self.send(step, Direction::Undo);
            }
        }
    }

    fn send_undos_again(&mut self) {
        self.state = Some(SagaState::Compensating);
        for step in 0..self.steps.len() {
            if self.steps[step].phase == Phase::Undoing {
                self.steps[step].attempts = 0;
                self.send(step, Direction::Undo);
            }
        }
    }

    fn send_commands_again(&mut self) {
        self.state = Some(SagaState::Running);
        for step in 0..self.steps.len() {
            let phase = self.steps[step].phase;
            if matches!(phase, Phase::Failed | Phase::Unknown) {
                self.steps[step].refused_before |= phase == Phase::Failed;
                self.steps[step].attempts = 0;
                self.send(step, Direction::Do);
            }
        }
    }

    fn send(&mut self, step: usize, direction: Direction) {
        self.steps[step].attempts += 1;
        self.steps[step].phase = match direction {
            Direction::Do => Phase::Requested,
            Direction::Undo => Phase::Undoing,
        };
        self.sent.insert((step, direction));
    }

    fn is_to_be_undone(&self, step: usize) -> bool {
        let has_undo = matches!(self.definition.steps()[step].compensation, Some(Compensation::Command(_)));
        has_undo && matches!(self.steps[step].phase, Phase::Succeeded | Phase::Unknown | Phase::Undoing)
    }

    fn undo_attempts(&self, step: usize) -> u32 {
        self.definition.steps()[step].undo().map_or(0, |undo| undo.attempts)
    }

    fn pivot_succeeded(&self) -> bool {
        self.definition.graph().pivot.is_some_and(|pivot| self.steps[pivot].phase == Phase::Succeeded)
    }

    fn any(&self, phase: Phase) -> bool {
        self.steps.iter().any(|track| track.phase == phase)
    }
}

fn require(holds: bool, otherwise: &str) -> Checked {
    if holds { Ok(()) } else { Err(otherwise.to_owned()) }
}
