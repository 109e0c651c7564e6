//! `symphony repair`

use std::process::ExitCode;

use anyhow::anyhow;
use comfy_table::{Table, presets};
use stack::Repository;
use stack::provision::Names;
use stack::repair::{Finding, Part, Target, look, mend};
use stack::supervisor::state::StackState;

use super::supervisor;
use crate::Context;

#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Without WHAT nothing is changed: it says what is wrong, and what repairing it would do.\n\n\
    Example:\n  symphony repair\n  symphony repair slot")]
pub struct Args {
    /// What to repair
    #[arg(value_enum, value_name = "WHAT")]
    what: Vec<What>,

    /// Repair all that is wrong
    #[arg(long, conflicts_with = "what")]
    all: bool,
}

/// What can be repaired.
#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum What {
    /// Make topics that are missing, and publish again what was lost with them
    Topics,
    /// Make the publication of the outbox
    Publication,
    /// Replace a replication slot that is gone or lost
    Slot,
    /// Make, set, resume or restart the connector
    Connector,
    /// Set consumer groups back whose offsets are behind the end of a topic
    Groups,
    /// Publish again every order that has not ended everywhere
    Orders,
}

impl What {
    fn part(self) -> Part {
        match self {
            Self::Topics => Part::Topics,
            Self::Publication => Part::Publication,
            Self::Slot => Part::Slot,
            Self::Connector => Part::Connector,
            Self::Groups => Part::Groups,
            Self::Orders => Part::Orders,
        }
    }
}

pub async fn run(args: &Args, context: &Context) -> anyhow::Result<ExitCode> {
    let state = supervisor::state(&context.data).await?.filter(|state| state.stack == StackState::Ready);
    let state = state.ok_or_else(|| anyhow!("no stack runs here, or it has not started yet: symphony up"))?;
    let endpoints = supervisor::endpoints(&state).ok_or_else(|| anyhow!("the servers do not run: symphony up"))?;
    let target = Target { endpoints, repository: Repository::find()?, names: Names::default() };
    let mends = args.all || !args.what.is_empty();
    let is_meant = |part: Part| !mends || args.all || args.what.iter().any(|what| what.part() == part);
    let parts: Vec<Part> = Part::ALL.into_iter().filter(|part| is_meant(*part)).collect();
    for part in parts.iter().filter(|_| mends) {
        // What is well is not asked for by --all, nor does it say that something was done.
        if args.all && look(&target, *part).await?.is_empty() {
            continue;
        }
        mend(&target, *part, &mut |line| eprintln!("{line}")).await?;
    }

    let mut findings = Vec::new();
    for part in parts {
        // What was just published again has not gone its way yet.
        if !(mends && part == Part::Orders) {
            findings.extend(look(&target, part).await?);
        }
    }
    print(&findings, mends, context.json)?;
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(findings: &[Finding], mended: bool, json: bool) -> anyhow::Result<()> {
    if json {
        outln!("{}", serde_json::to_string_pretty(&serde_json::json!({ "findings": findings }))?);
        return Ok(());
    }
    if findings.is_empty() {
        outln!("{}", if mended { "done" } else { "nothing is wrong between the outbox and its readers" });
        return Ok(());
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for Finding { part, problem, repair } in findings {
        let repair = repair.as_ref().map_or_else(
            || "no command can repair it".to_owned(),
            |repair| format!("symphony repair {}: {repair}", part.as_str()),
        );
        table.add_row([part.as_str(), problem]);
        table.add_row(["", &repair]);
    }
    outln!("{}", table.trim_fmt());
    Ok(())
}
