//! `symphony test --soak`: many faults, one after the other and beside each other, under a load, and the proof that
//! nothing was lost.
//!
//! [`schedule`] draws from a seed which fault comes when; [`runner`] carries it out on a stack of its own ([`stand`])
//! while [`load`] places orders; each fault is injected, proven to have happened, and healed ([`faults`]), and the time
//! until everything works again is measured ([`recovery`]). In the end [`finish`] waits until all is drained and audits.

mod disk;
mod draw;
mod faults;
mod finish;
mod kinds;
mod load;
mod proxy;
mod recovery;
mod report;
mod runner;
mod schedule;
pub mod shim;
mod stand;

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use self::kinds::Kind;
use self::report::Report;
use self::stand::Stand;

/// The least orders a second, on the whole, that a soak is worth anything with.
pub const LEAST_RATE: u32 = 50;

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// For how long faults are injected. Minutes.
    pub minutes: u32,
    /// Decides which fault comes when, and whom it hits; the same number gives the same schedule.
    pub seed: u64,
    /// Orders a second that are placed; more than [`LEAST_RATE`], which have to be accepted.
    pub rate: u32,
    /// Only kinds whose names contain one of these; all if there is none.
    pub only: Vec<String>,
    /// Where the report goes.
    pub out: PathBuf,
}

/// Runs the soak. The report says whether it passed; it is written to its file too. The stack's files are kept unless it
/// passed.
///
/// # Errors
/// When the stack could not be started or stopped, or the report not be written.
pub async fn run(options: &Options) -> anyhow::Result<Report> {
    let seed = options.seed;
    eprintln!("soak of {} minutes with seed {seed}", options.minutes);
    let stand = Stand::start().await.with_context(|| format!("the stack of the soak with seed {seed}"))?;
    let (kinds, left_out) = kinds::split(|kind| unavailable(&stand, kind), &options.only);
    let schedule = schedule::draw(seed, options.minutes, &kinds);
    let outcome = runner::run(&stand, options, schedule, left_out).await;
    let passed = outcome.as_ref().is_ok_and(|report| report.passed);
    let files = stand.stop(!passed).await;
    let mut report = outcome.with_context(|| format!("the soak with seed {seed}; its files: {}", files.display()))?;
    report.files = (!passed).then_some(files);
    write(&options.out, &report)?;
    eprintln!("the report is in {}", options.out.display());
    Ok(report)
}

/// Why `kind` cannot be done on this machine, or by this version; `None` if it can.
fn unavailable(stand: &Stand, kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::DiskFull => stand.disk().err(),
        Kind::ClockStep => stand.shim().err(),
        _ => None,
    }
}

fn write(path: &Path, report: &Report) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let text = serde_json::to_string_pretty(report)?;
    std::fs::write(path, text + "\n").with_context(|| path.display().to_string())
}
