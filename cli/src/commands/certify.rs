//! `symphony certify`: every step of every saga under every fault, on a stack of its own.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use stack::{DataDir, Repository};
use tokio::signal::unix::{SignalKind, signal};

use crate::Context;
use crate::certify::own::OwnStack;
use crate::certify::{Fault, Report, Samples, Select, certify, page};

/// Proves every step of every saga against every fault.
///
/// It starts a stack of its own in a temporary folder, or in the one that --data-dir names, and takes it down again. It
/// fails unless every cell is green; a cell without proof that its fault happened is void, not green.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example:\n  symphony certify --step payment --fault reply-lost --out target/certify")]
pub struct Args {
    /// Only this saga; may be repeated
    #[arg(long, value_name = "NAME")]
    definition: Vec<String>,
    /// Only this step; may be repeated
    #[arg(long, value_name = "NAME")]
    step: Vec<String>,
    /// Only this fault; may be repeated
    #[arg(long, value_enum, value_name = "FAULT")]
    fault: Vec<Fault>,
    /// Write certify.json and certify.html into this folder
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// The folder that says how each saga is started and counted [default: sagas/certify]
    #[arg(long, value_name = "FOLDER")]
    samples: Option<PathBuf>,
}

/// Prints the matrix; fails unless all of it is green.
pub async fn run(args: &Args, context: &Context) -> anyhow::Result<ExitCode> {
    let folder = args.samples.clone().map_or_else(|| Ok(Repository::find()?.sagas().join("certify")), anyhow::Ok)?;
    let samples = Samples::read(&folder)?;
    // Before minutes are spent.
    if let Some(out) = &args.out {
        std::fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    }
    // PostgreSQL may run as another user: what it had to put elsewhere would outlive this folder.
    let open_to_all = Permissions::from_mode(0o755);
    let temporary = tempfile::Builder::new().prefix("symphony-certify-").permissions(open_to_all).tempdir()?;
    let data = match &context.named {
        true => context.data.clone(),
        false => DataDir::at(&temporary.path().join("stack"))?,
    };
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    eprintln!("starting a stack in {}", data.root().display());
    let mut stack = OwnStack::spawn(data).await?;
    let select = Select { definitions: args.definition.clone(), steps: args.step.clone(), faults: args.fault.clone() };
    let played = async {
        let stand = stack.ready().await?;
        Box::pin(certify(stand, &samples, &select, |line| eprintln!("{line}"))).await
    };
    let report = tokio::select! {
        report = played => report,
        _ = interrupt.recv() => Err(anyhow!("interrupted")),
        _ = terminate.recv() => Err(anyhow!("terminated")),
    };
    let down = stack.down(!context.named).await;
    let report = report?;
    show(&report, context.json, args.out.as_deref())?;
    down?;
    Ok(if report.certified { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show(report: &Report, json: bool, out: Option<&Path>) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(report)?;
    if let Some(out) = out {
        std::fs::write(out.join("certify.json"), &text)?;
        std::fs::write(out.join("certify.html"), page(report))?;
        eprintln!("written to {}", out.display());
    }
    if json {
        outln!("{text}");
    } else {
        outln!("{report}");
    }
    Ok(())
}
