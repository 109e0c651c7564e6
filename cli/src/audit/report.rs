//! What an audit found.

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

/// Violations that are told in full, for each invariant; the rest is counted.
const TOLD: usize = 20;

/// The result of an audit.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// When the audit began, by the database's clock. Checks across databases cover sagas that ended before.
    pub began_at: DateTime<Utc>,
    /// One finding for each invariant, I1 to I8.
    pub findings: Vec<Finding>,
    /// Sagas whose end an operator declared. I3 says nothing about them.
    pub resolved: Vec<Uuid>,
    /// What keeps the audit from telling more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl Report {
    /// Whether every invariant holds.
    pub fn is_clean(&self) -> bool {
        self.findings.iter().all(|finding| finding.violated == 0)
    }

    /// The ids of the invariants that do not hold.
    pub fn violated(&self) -> Vec<&'static str> {
        self.findings.iter().filter(|finding| finding.violated > 0).map(|finding| finding.invariant).collect()
    }
}

/// What was counted for one invariant, and what contradicts it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// `I1` to `I8`.
    pub invariant: &'static str,
    /// The invariant in a few words.
    pub title: &'static str,
    /// What was looked at, and how many of it.
    pub counted: Vec<Count>,
    /// Number of violations.
    pub violated: u64,
    /// The first violations.
    pub violations: Vec<String>,
}

/// A number and what it is of.
#[derive(Debug, Serialize)]
pub struct Count {
    /// What was counted.
    pub what: &'static str,
    /// How many.
    pub count: usize,
}

impl Finding {
    pub(super) fn new(invariant: &'static str, title: &'static str) -> Self {
        Self { invariant, title, counted: Vec::new(), violated: 0, violations: Vec::new() }
    }

    pub(super) fn count(&mut self, what: &'static str, count: usize) {
        self.counted.push(Count { what, count });
    }

    pub(super) fn violation(&mut self, text: String) {
        self.violated += 1;
        if self.violations.len() < TOLD {
            self.violations.push(text);
        }
    }

    /// Records a violation unless `holds`.
    pub(super) fn require(&mut self, holds: bool, text: impl FnOnce() -> String) {
        if !holds {
            self.violation(text());
        }
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for finding in &self.findings {
            let verdict = if finding.violated == 0 { "ok" } else { "VIOLATED" };
            writeln!(f, "{}  {:<8}  {}", finding.invariant, verdict, finding.title)?;
            let counted: Vec<String> =
                finding.counted.iter().map(|count| format!("{} {}", count.count, count.what)).collect();
            writeln!(f, "    {}", counted.join(", "))?;
            for violation in &finding.violations {
                writeln!(f, "    - {violation}")?;
            }
            let untold = finding.violated - finding.violations.len() as u64;
            if untold > 0 {
                writeln!(f, "    - and {untold} more")?;
            }
        }
        if !self.resolved.is_empty() {
            writeln!(f, "resolved by an operator, apart from I3: {}", self.resolved.len())?;
            for saga in self.resolved.iter().take(TOLD) {
                writeln!(f, "    - {saga}")?;
            }
        }
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        let violated: u64 = self.findings.iter().map(|finding| finding.violated).sum();
        match violated {
            0 => writeln!(f, "clean: I1 to I8 hold"),
            count => writeln!(f, "{count} violations of {}", self.violated().join(", ")),
        }
    }
}
