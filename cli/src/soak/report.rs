//! What a soak has shown.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use comfy_table::{Table, presets};
use serde::Serialize;

use super::finish::{Ending, LAST};
use super::kinds::{Company, Kind, LeftOut};
use super::load::Summary;
use super::{LEAST_RATE, Options};

/// One fault.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry {
    pub(super) kind: String,
    /// Whom it hit.
    pub(super) target: String,
    /// When it began, from the first.
    pub(super) at_seconds: f64,
    /// From its beginning to its healing.
    pub(super) seconds: f64,
    /// Whether a recovery was measured; the others run beside those.
    pub(super) is_main: bool,
    /// What ran beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) together_with: Option<String>,
    /// How one can see that it happened.
    pub(super) proof: Option<String>,
    /// Until every component was ready and a new order was completed.
    pub(super) recovery_seconds: Option<f64>,
    /// The longest that may take.
    pub(super) limit_seconds: Option<f64>,
    /// Why it counts against the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) problem: Option<String>,
}

impl Entry {
    /// Something wrong with the run itself.
    pub(super) fn problem(kind: &str, problem: String) -> Self {
        Self {
            kind: kind.into(),
            target: String::new(),
            at_seconds: 0.0,
            seconds: 0.0,
            is_main: false,
            together_with: None,
            proof: None,
            recovery_seconds: None,
            limit_seconds: None,
            problem: Some(problem),
        }
    }
}

/// All entries of a kind.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    kind: String,
    injected: usize,
    proven: usize,
    recoveries_seconds: Vec<f64>,
    limit_seconds: Option<f64>,
    alone: bool,
    problems: Vec<String>,
}

/// The report of a soak.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Whether nothing is wrong.
    pub passed: bool,
    /// What is, in words.
    pub problems: Vec<String>,
    seed: u64,
    minutes: u32,
    faults_seconds: f64,
    kinds: Vec<Row>,
    /// Kinds that were not drawn, and why.
    left_out: Vec<LeftOut>,
    /// Kinds for which there was no time, or not for twice.
    too_few: Vec<String>,
    load: Summary,
    ending: Ending,
    faults: Vec<Entry>,
    /// Where logs and data are, when they were kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) files: Option<PathBuf>,
}

impl Report {
    pub(super) fn new(
        options: &Options,
        faults: Vec<Entry>,
        left_out: Vec<LeftOut>,
        load: Summary,
        ending: Ending,
        faults_seconds: f64,
    ) -> Self {
        let mut rows: BTreeMap<&str, Row> = BTreeMap::new();
        for entry in &faults {
            let row = rows.entry(&entry.kind).or_default();
            row.kind.clone_from(&entry.kind);
            row.injected += 1;
            row.proven += usize::from(entry.proof.is_some());
            row.recoveries_seconds.extend(entry.recovery_seconds);
            row.limit_seconds = entry.limit_seconds;
            row.problems.extend(entry.problem.clone());
        }
        let mut too_few = Vec::new();
        for kind in Kind::all() {
            let name = kind.to_string();
            let alone = kind.company() == Company::Alone;
            let row = rows.get_mut(name.as_str());
            let count = row.as_ref().map_or(0, |row| row.proven);
            if let Some(row) = row {
                row.alone = alone;
            }
            let is_asked = options.only.is_empty() && left_out.iter().all(|left| left.kind != name);
            if is_asked && count < if alone { 1 } else { 2 } {
                too_few.push(format!("{name}: {count}"));
            }
        }
        let kinds = rows.into_values().collect();
        let mut report = Self {
            passed: false,
            problems: Vec::new(),
            seed: options.seed,
            minutes: options.minutes,
            faults_seconds,
            kinds,
            left_out,
            too_few,
            load,
            ending,
            faults,
            files: None,
        };
        report.problems = report.judge(options);
        report.passed = report.problems.is_empty();
        report
    }

    fn judge(&self, options: &Options) -> Vec<String> {
        let mut problems: Vec<String> = Vec::new();
        for fault in &self.faults {
            problems
                .extend(fault.problem.as_ref().map(|problem| format!("{} {}: {problem}", fault.kind, fault.target)));
        }
        let ending = &self.ending;
        let mut require = |holds: bool, problem: String| {
            if !holds {
                problems.push(problem);
            }
        };
        require(!self.faults.is_empty(), "no fault was injected".into());
        let enough = options.minutes < 20 || self.too_few.is_empty();
        require(enough, format!("not injected often enough: {}", self.too_few.join(", ")));
        let rate = self.load.rate_per_second;
        require(rate >= f64::from(LEAST_RATE), format!("only {rate:.1} orders a second were accepted"));
        let (placed, accepted) = (self.load.placed, self.load.accepted);
        require(placed == accepted, format!("{accepted} of {placed} orders were accepted"));
        require(
            ending.audit.is_clean(),
            format!("the audit found violations of {}", ending.audit.violated().join(", ")),
        );
        let last = ending.last_completed;
        require(last == LAST, format!("{last} of the last {LAST} orders were completed"));
        require(ending.missing.is_empty(), format!("accepted orders that are nowhere: {:?}", ending.missing));
        require(ending.open == 0, format!("{} orders have not ended", ending.open));
        let unexplained = ending.letters - ending.letters_explained;
        require(unexplained == 0, format!("{unexplained} dead letters that no fault explains"));
        require(ending.wrong_answers.is_empty(), format!("wrong answers: {}", ending.wrong_answers.join("; ")));
        problems
    }
}

fn seconds(times: &[f64]) -> String {
    if times.is_empty() {
        return "-".into();
    }
    times.iter().map(|time| format!("{time:.1}")).collect::<Vec<_>>().join(" ")
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>6.0} s  {:<32}", self.at_seconds, self.kind)?;
        if self.target != self.kind {
            write!(f, " {:<20}", self.target)?;
        }
        if let Some(recovery) = self.recovery_seconds {
            write!(f, " recovered after {recovery:.1} s;")?;
        }
        write!(f, " {}", self.problem.as_ref().or(self.proof.as_ref()).map_or("", String::as_str))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["FAULT", "INJECTED", "PROVEN", "RECOVERED AFTER (S)", "LIMIT (S)", "RAN"]);
        for row in &self.kinds {
            table.add_row([
                row.kind.clone(),
                row.injected.to_string(),
                row.proven.to_string(),
                seconds(&row.recoveries_seconds),
                row.limit_seconds.map_or_else(|| "-".into(), |limit| format!("{limit:.0}")),
                if row.alone { "alone".into() } else { "beside others".to_owned() },
            ]);
        }
        writeln!(f, "{}", table.trim_fmt())?;
        let proven: usize = self.kinds.iter().map(|row| row.proven).sum();
        writeln!(f, "\nseed       {}", self.seed)?;
        writeln!(f, "faults     {proven} proven of {}, in {:.0} s", self.faults.len(), self.faults_seconds)?;
        for left in &self.left_out {
            writeln!(f, "left out   {}: {}", left.kind, left.why)?;
        }
        if !self.too_few.is_empty() {
            writeln!(f, "few        {}", self.too_few.join(", "))?;
        }
        let load = &self.load;
        writeln!(
            f,
            "orders     {} placed, {} accepted ({:.1}/s); {} requests sent again, {} accepted orders asked for once more",
            load.placed, load.accepted, load.rate_per_second, load.retried, load.repeated
        )?;
        writeln!(
            f,
            "202 after  p50 {:.0} ms, p99 {:.0} ms, at most {:.0} ms",
            load.accept_p50_ms, load.accept_p99_ms, load.accept_max_ms
        )?;
        let ending = &self.ending;
        let statuses: Vec<String> = ending.statuses.iter().map(|(status, count)| format!("{count} {status}")).collect();
        writeln!(
            f,
            "ended      {}; {} good ones cancelled; all ended {:.0} s after the last",
            statuses.join(", "),
            ending.good_cancelled,
            ending.drain_seconds
        )?;
        writeln!(f, "last       {} of {LAST} completed after the final healing", ending.last_completed)?;
        writeln!(f, "letters    {}, {} of them by injected faults", ending.letters, ending.letters_explained)?;
        for letter in &ending.letters_unexplained {
            writeln!(f, "    - {letter}")?;
        }
        write!(f, "\n{}", ending.audit)?;
        for problem in &self.problems {
            writeln!(f, "PROBLEM    {problem}")?;
        }
        if let Some(files) = &self.files {
            writeln!(f, "files      {}", files.display())?;
        }
        write!(f, "{}", if self.passed { "the soak passed" } else { "the soak FAILED" })
    }
}
