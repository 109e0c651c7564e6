//! Which transitions exist, and whether the histories walked all of them.
//!
//! The table is the machine in one view; `transitions.md` draws it. A walk that is not in it is as much a
//! failure as one that no history takes.

use std::collections::{BTreeMap, BTreeSet};

use saga::{EntryKind, IgnoredReason, Phase, Saga, SagaState, Transition, Verdict};

type Edge = (Option<SagaState>, EntryKind, SagaState);

const EDGES: &[Edge] = {
    use EntryKind::*;
    use SagaState::*;
    &[
        (None, Started, Running),
        (Some(Running), StepSucceeded, Running),
        (Some(Running), StepSucceeded, Completed),
        (Some(Running), StepFailed, Compensating),
        (Some(Running), StepFailed, Compensated),
        (Some(Running), StepFailed, Parked),
        (Some(Running), StepRetried, Running),
        (Some(Running), StepTimedOut, Compensating),
        (Some(Running), StepTimedOut, Compensated),
        (Some(Running), StepTimedOut, Parked),
        (Some(Running), OperatorCompensated, Compensating),
        (Some(Running), OperatorCompensated, Compensated),
        (Some(Compensating), StepUndone, Compensating),
        (Some(Compensating), StepUndone, Compensated),
        (Some(Compensating), UndoRetried, Compensating),
        (Some(Compensating), UndoTimedOut, Parked),
        (Some(Parked), StepUndone, Compensating),
        (Some(Parked), StepUndone, Compensated),
        (Some(Parked), OperatorRetried, Running),
        (Some(Parked), OperatorRetried, Compensating),
        (Some(Parked), OperatorCompensated, Compensating),
        (Some(Parked), OperatorCompensated, Compensated),
        (Some(Parked), OperatorResolved, Completed),
        (Some(Parked), OperatorResolved, Compensated),
    ]
};

/// How a step can change in one transition.
const PHASES: &[(Phase, Phase)] = {
    use Phase::*;
    &[
        (Waiting, Requested),
        (Waiting, Skipped),
        (Requested, Succeeded),
        (Requested, Failed),
        (Requested, Unknown),
        (Requested, Undoing),
        (Succeeded, Undoing),
        (Failed, Requested),
        (Failed, Unknown),
        (Failed, Undoing),
        (Unknown, Requested),
        (Unknown, Undoing),
        (Undoing, Undone),
    ]
};

/// What a verdict was, where it was not a transition.
const OTHERS: &[&str] = &["contradicting", "duplicate", "ended", "late", "lost", "nothing due", "refused"];

#[derive(Default)]
pub(crate) struct Walked {
    edges: BTreeMap<Edge, u64>,
    phases: BTreeMap<(Phase, Phase), u64>,
    others: BTreeMap<&'static str, u64>,
}

impl Walked {
    pub(crate) fn started(&mut self, started: &Transition) {
        self.edge(None, started);
    }

    pub(crate) fn lost(&mut self, lost: bool) {
        *self.others.entry("lost").or_default() += u64::from(lost);
    }

    pub(crate) fn verdict(&mut self, before: &Saga, verdict: &Verdict) {
        let other = match verdict {
            Verdict::Moved(moved) => return self.edge(Some(before), moved),
            Verdict::Duplicate(_) => "duplicate",
            Verdict::Ignored(reason) => IgnoredReason::as_str(*reason),
            Verdict::Refused(_) => "refused",
            Verdict::NothingDue => "nothing due",
            Verdict::Poison(_) => "poison",
        };
        *self.others.entry(other).or_default() += 1;
    }

    fn edge(&mut self, before: Option<&Saga>, moved: &Transition) {
        let edge = (before.map(|saga| saga.state), moved.entry.kind, moved.saga.state);
        *self.edges.entry(edge).or_default() += 1;
        for (index, run) in moved.saga.steps.iter().enumerate() {
            let from = before.map_or(Phase::Waiting, |saga| saga.steps[index].phase);
            if from != run.phase {
                *self.phases.entry((from, run.phase)).or_default() += 1;
            }
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        other.edges.into_iter().for_each(|(edge, n)| *self.edges.entry(edge).or_default() += n);
        other.phases.into_iter().for_each(|(phases, n)| *self.phases.entry(phases).or_default() += n);
        other.others.into_iter().for_each(|(what, n)| *self.others.entry(what).or_default() += n);
    }

    /// Every edge was walked, and no other one.
    pub(crate) fn assert_complete(&self) {
        compare("transitions", EDGES.iter().copied(), self.edges.keys().copied());
        compare("phases", PHASES.iter().copied(), self.phases.keys().copied());
        compare("verdicts", OTHERS.iter().copied(), self.others.keys().copied());
        for (edge, times) in &self.edges {
            println!("{times:>8}  {edge:?}");
        }
    }
}

fn compare<T: Ord + std::fmt::Debug>(what: &str, known: impl Iterator<Item = T>, walked: impl Iterator<Item = T>) {
    let (known, walked): (BTreeSet<T>, BTreeSet<T>) = (known.collect(), walked.collect());
    let missed: Vec<&T> = known.difference(&walked).collect();
    assert!(missed.is_empty(), "{what} no history walked: {missed:?}");
    let new: Vec<&T> = walked.difference(&known).collect();
    assert!(new.is_empty(), "{what} that are not in the table: {new:?}");
}

#[test]
fn the_drawing_of_the_machine_is_the_table() {
    let mut drawing = String::from(
        "# The transitions of a saga\n\nEvery one of these is walked by the random histories of the tests.\n\n\
         ```mermaid\nstateDiagram-v2\n",
    );
    for (from, kind, to) in EDGES {
        let from = from.map_or("[*]", SagaState::as_str);
        drawing += &format!("    {from} --> {to}: {kind}\n");
    }
    drawing += "    COMPLETED --> [*]\n    COMPENSATED --> [*]\n```\n\nA step:\n\n```mermaid\nstateDiagram-v2\n    [*] --> WAITING\n";
    for (from, to) in PHASES {
        drawing += &format!("    {from} --> {to}\n");
    }
    drawing += "```\n";
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/transitions.md");
    if std::env::var_os("WRITE_CONTRACTS").is_some() {
        std::fs::write(file, &drawing).expect("the crate's folder can be written");
    }
    let committed = std::fs::read_to_string(file).unwrap_or_default();
    assert!(committed == drawing, "transitions.md has drifted: run with WRITE_CONTRACTS=1 and commit it");
}
