//! `symphony logs`

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use stack::DataDir;
use stack::supervisor::state::{State, label};

use crate::Context;

#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example:\n  symphony logs payment-svc -n 20 -f")]
pub struct Args {
    /// A component as `symphony status` lists it: NAME, or NAME/INSTANCE; `supervisor` for what `up --detach` reports
    name: String,

    /// Show what is added, until Ctrl-C
    #[arg(long, short)]
    follow: bool,

    /// Begin with the last so many lines instead of the first one
    #[arg(long, short = 'n')]
    lines: Option<usize>,
}

pub async fn run(args: &Args, context: &Context) -> anyhow::Result<ExitCode> {
    let path = find(&context.data, &args.name)?;
    let mut end = match print_existing(&path, args.lines) {
        // Nobody reads on: `symphony logs kafka | head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
        printed => printed.with_context(|| path.display().to_string())?,
    };
    if !args.follow {
        return Ok(ExitCode::SUCCESS);
    }
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        end = match print_from(&path, end) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
            printed => printed.with_context(|| path.display().to_string())?,
        };
    }
}

fn find(data: &DataDir, name: &str) -> anyhow::Result<PathBuf> {
    if name == "supervisor" {
        return Ok(data.log(name));
    }
    let state = State::read(data)?.ok_or_else(|| anyhow!("no stack was ever started in {}", data.root().display()))?;
    let wanted = |component: &&stack::supervisor::state::ComponentState| {
        component.label() == name || format!("{}/{}", component.name, component.instance) == name
    };
    let found = state.components.iter().find(wanted).map(|component| component.log.clone());
    found.ok_or_else(|| {
        let names: Vec<_> = state.components.iter().map(|known| label(&known.name, known.instance)).collect();
        anyhow!("there is no component {name}; there are {}, supervisor", names.join(", "))
    })
}

/// Prints the log, or the last lines of it. Returns its length.
fn print_existing(path: &Path, lines: Option<usize>) -> io::Result<u64> {
    let Some(lines) = lines else { return print_from(path, 0) };
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)?;
    let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let mut breaks = text.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n').map(|(index, _)| index + 1);
    let start = if lines == 0 { bytes.len() } else { breaks.nth(lines - 1).unwrap_or(0) };
    let mut stdout = io::stdout().lock();
    stdout.write_all(&bytes[start..])?;
    stdout.flush()?;
    Ok(bytes.len() as u64)
}

/// Prints what comes after `start`, or everything if the log has started again. Returns its length.
fn print_from(path: &Path, start: u64) -> io::Result<u64> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let start = if length < start { 0 } else { start };
    file.seek(SeekFrom::Start(start))?;
    let mut stdout = io::stdout().lock();
    let printed = io::copy(&mut file, &mut stdout)?;
    stdout.flush()?;
    Ok(start + printed)
}
