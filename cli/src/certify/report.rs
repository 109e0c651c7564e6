//! The matrix and the reasons for each of its cells.

use std::fmt;

use chrono::{DateTime, Utc};
use comfy_table::{Table, presets};
use serde::Serialize;
use uuid::Uuid;

use super::cells::{Cell, Fault};

/// What is said of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The fault happened, which is proven, and everything is as it must be.
    Green,
    /// Something is not as it must be.
    Red,
    /// It was not played, or nothing proves that the fault happened: it says nothing.
    Void,
    /// The definition rules out that this can happen.
    Exempt,
}

impl Verdict {
    /// As the table says it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Green => "green",
            Self::Red => "RED",
            Self::Void => "VOID",
            Self::Exempt => "-",
        }
    }
}

/// One step under one fault.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CellReport {
    /// The step that the fault was aimed at.
    pub step: String,
    /// What happened to it.
    pub fault: Fault,
    /// What is said of it.
    pub verdict: Verdict,
    /// The instance that played it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub saga: Option<Uuid>,
    /// The instance's state at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// From the start of the instance until all was seen, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
    /// What proves that the fault happened.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub proof: Vec<String>,
    /// What is missing of the proof, or why it was not played.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// What is not as it must be, with the invariant it belongs to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub violations: Vec<String>,
}

impl CellReport {
    pub(super) fn of(cell: &Cell) -> Self {
        CellReport {
            step: cell.step().name.clone(),
            fault: cell.fault,
            verdict: Verdict::Void,
            saga: None,
            state: None,
            took_ms: None,
            proof: Vec::new(),
            missing: Vec::new(),
            violations: Vec::new(),
        }
    }

    /// One that was not played for this reason.
    pub(super) fn not_played(cell: &Cell, why: &str) -> Self {
        let verdict = if cell.exempt().is_some() { Verdict::Exempt } else { Verdict::Void };
        CellReport { verdict, missing: vec![why.to_owned()], ..Self::of(cell) }
    }

    /// Says what follows from what was found.
    pub(super) fn decide(&mut self) {
        self.verdict = match (self.violations.is_empty(), self.missing.is_empty()) {
            _ if self.verdict == Verdict::Exempt => Verdict::Exempt,
            (false, _) => Verdict::Red,
            (true, false) => Verdict::Void,
            // No proof at all is no proof.
            (true, true) if self.proof.is_empty() => Verdict::Void,
            (true, true) => Verdict::Green,
        };
    }
}

/// The cells of one definition.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SagaReport {
    /// Name of the saga.
    pub name: String,
    /// The version its author gave it.
    pub version: u32,
    /// SHA-256 of the definition that was certified.
    pub digest: String,
    /// Every step under every fault that was asked for.
    pub cells: Vec<CellReport>,
}

/// The result of a run.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// From then to the end, in seconds.
    pub took_seconds: u64,
    /// Whether every cell is green or exempt, at least one of them is green, and the audit is clean.
    pub certified: bool,
    /// One for each definition.
    pub sagas: Vec<SagaReport>,
    /// Whether the whole audit, I1 to I8, was made at the end.
    pub audited: bool,
    /// What the audit found that belongs to no cell.
    pub violations: Vec<String>,
}

impl Report {
    pub(super) fn new(started_at: DateTime<Utc>, sagas: Vec<SagaReport>, audit: Option<Vec<String>>) -> Self {
        let took_seconds = u64::try_from((Utc::now() - started_at).num_seconds()).unwrap_or_default();
        let (audited, violations) = (audit.is_some(), audit.unwrap_or_default());
        let mut report = Report { started_at, took_seconds, certified: false, sagas, audited, violations };
        let is_good = |verdict| matches!(verdict, Verdict::Green | Verdict::Exempt);
        let all_good = report.violations.is_empty() && report.cells().all(|cell| is_good(cell.verdict));
        report.certified = all_good && report.count(Verdict::Green) > 0;
        report
    }

    /// The cells of all definitions.
    pub fn cells(&self) -> impl Iterator<Item = &CellReport> {
        self.sagas.iter().flat_map(|saga| &saga.cells)
    }

    /// How many cells have this verdict.
    #[must_use]
    pub fn count(&self, verdict: Verdict) -> usize {
        self.cells().filter(|cell| cell.verdict == verdict).count()
    }

    /// The last line: how many cells are what.
    #[must_use]
    pub fn summary(&self) -> String {
        let word = if self.certified { "certified" } else { "NOT certified" };
        let [green, red, void, exempt] =
            [Verdict::Green, Verdict::Red, Verdict::Void, Verdict::Exempt].map(|verdict| self.count(verdict));
        let audit = match (self.audited, self.violations.len()) {
            (false, _) => "no audit",
            (true, 0) => "audit clean",
            (true, _) => "audit NOT clean",
        };
        let took = self.took_seconds;
        format!("{word}: {green} green, {red} red, {void} void, {exempt} not applicable, {audit}, in {took} s")
    }
}

impl SagaReport {
    /// The names of the steps that have cells, in order.
    #[must_use]
    pub fn steps(&self) -> Vec<&str> {
        let mut steps: Vec<&str> = self.cells.iter().map(|cell| cell.step.as_str()).collect();
        steps.dedup();
        steps
    }

    /// The cell of a step and a fault.
    #[must_use]
    pub fn cell(&self, step: &str, fault: Fault) -> Option<&CellReport> {
        self.cells.iter().find(|cell| cell.step == step && cell.fault == fault)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for saga in &self.sagas {
            writeln!(f, "{} version {} ({})", saga.name, saga.version, saga.digest.get(..12).unwrap_or_default())?;
            let steps = saga.steps();
            let mut table = Table::new();
            table.load_style(presets::NOTHING).set_header(["FAULT"].iter().chain(&steps));
            for fault in Fault::ALL {
                let cells: Vec<_> = steps.iter().map(|step| saga.cell(step, fault)).collect();
                if cells.iter().all(Option::is_none) {
                    continue;
                }
                let words = cells.iter().map(|cell| cell.map_or("", |cell| cell.verdict.word()));
                table.add_row([fault.name()].into_iter().chain(words));
            }
            writeln!(f, "{}\n", table.trim_fmt())?;
            for cell in saga.cells.iter().filter(|cell| matches!(cell.verdict, Verdict::Red | Verdict::Void)) {
                let saga_id = cell.saga.map(|id| format!(" (saga {id})")).unwrap_or_default();
                writeln!(f, "{} {} {}{saga_id}", cell.verdict.word(), cell.step, cell.fault.name())?;
                for line in &cell.violations {
                    writeln!(f, "    - {line}")?;
                }
                for line in &cell.missing {
                    writeln!(f, "    - not proven: {line}")?;
                }
            }
        }
        for violation in &self.violations {
            writeln!(f, "audit: {violation}")?;
        }
        write!(f, "{}", self.summary())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(proof: &[&str], missing: &[&str], violations: &[&str]) -> CellReport {
        let own = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let mut cell = CellReport {
            step: "pay".to_owned(),
            fault: Fault::ReplyLost,
            verdict: Verdict::Void,
            saga: None,
            state: None,
            took_ms: None,
            proof: own(proof),
            missing: own(missing),
            violations: own(violations),
        };
        cell.decide();
        cell
    }

    fn report(cells: Vec<CellReport>, audit: Option<Vec<String>>) -> Report {
        let saga = SagaReport { name: "trip".to_owned(), version: 1, digest: "a".repeat(64), cells };
        Report::new(Utc::now(), vec![saga], audit)
    }

    #[test]
    fn a_cell_is_green_only_with_its_whole_proof_and_without_a_violation() {
        assert_eq!(cell(&["hit"], &[], &[]).verdict, Verdict::Green);
        assert_eq!(cell(&["hit"], &["no retry"], &[]).verdict, Verdict::Void);
        assert_eq!(cell(&[], &[], &[]).verdict, Verdict::Void);
        assert_eq!(cell(&[], &["no hit"], &["I3: twice"]).verdict, Verdict::Red);
    }

    #[test]
    fn one_void_cell_or_one_violation_of_the_audit_is_enough_to_certify_nothing() {
        let green = || cell(&["hit"], &[], &[]);
        assert!(report(vec![green()], Some(Vec::new())).certified);
        assert!(!report(vec![green(), cell(&[], &[], &[])], Some(Vec::new())).certified);
        assert!(!report(vec![green()], Some(vec!["I4: a cent is missing".to_owned()])).certified);
        let exempt = || CellReport { verdict: Verdict::Exempt, ..cell(&[], &[], &[]) };
        assert!(report(vec![green(), exempt()], Some(Vec::new())).certified);
        assert!(!report(vec![exempt()], Some(Vec::new())).certified, "nothing was shown");
        let told = report(vec![cell(&[], &["no hit"], &[])], None).to_string();
        assert!(told.contains("VOID pay reply-lost") && told.contains("NOT certified"), "{told}");
    }
}
