//! `symphony up`

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use stack::supervisor::state::{StackState, State};
use stack::supervisor::{self, Lock, Options, Report};
use stack::{DataDir, Repository, log};

use super::supervisor::state;
use crate::{Context, output};

#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example:\n  symphony up --detach --data-dir /tmp/second")]
pub struct Args {
    /// Return when everything is ready and leave it running; `symphony down` ends it
    #[arg(long, short)]
    detach: bool,

    /// Start PostgreSQL, Kafka and Connect, but no service
    #[arg(long)]
    servers_only: bool,

    /// Set by `--detach` for the process that stays
    #[arg(long, hide = true, conflicts_with = "detach")]
    stay: bool,
}

impl Args {
    /// The process that stays gets a session of its own and gives up every file of the caller's but the three
    /// that it was started with.
    pub(crate) fn leave_the_caller(&self) -> anyhow::Result<()> {
        if !self.stay {
            return Ok(());
        }
        nix::unistd::setsid().context("making a session")?;
        let open: Vec<i32> = std::fs::read_dir("/proc/self/fd")?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|number| *number > 2)
            .collect();
        for number in open {
            // The one that listed them is closed by now.
            let _ = nix::unistd::close(number);
        }
        Ok(())
    }
}

pub async fn run(args: &Args, context: &Context) -> anyhow::Result<ExitCode> {
    if args.detach {
        return detach(args, context).await;
    }
    let Some(lock) = Lock::take(&context.data)? else {
        return already_runs(context).await;
    };
    let program = std::env::current_exe().context("finding this program")?;
    let programs = program.parent().map(Path::to_path_buf).unwrap_or_default();
    let options = Options { repository: Repository::find()?, programs, servers_only: args.servers_only };
    let (json, stay) = (context.json, args.stay);
    let ready = move |state: &State| {
        if stay {
            return;
        }
        // Nobody may be reading; that is no reason to end the stack.
        let _ = show(json, state);
        eprintln!("all is ready; Ctrl-C stops it");
    };
    supervisor::run(lock, options, Report::new(|line| eprintln!("{line}")), ready).await?;
    Ok(ExitCode::SUCCESS)
}

/// Waits until the stack that another `up` started is ready.
async fn already_runs(context: &Context) -> anyhow::Result<ExitCode> {
    loop {
        match state(&context.data).await? {
            Some(state) if state.stack == StackState::Ready => {
                eprintln!("the stack runs already (process {})", state.supervisor.pid);
                show(context.json, &state)?;
                return Ok(ExitCode::SUCCESS);
            }
            Some(state) if state.stack != StackState::Starting => {
                return Err(anyhow!("the stack that was here is ending; try again"));
            }
            _ => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

fn show(json: bool, state: &State) -> anyhow::Result<()> {
    if json {
        outln!("{}", output::json(state)?);
    } else {
        outln!("{}", output::table(state));
    }
    Ok(())
}

async fn detach(args: &Args, context: &Context) -> anyhow::Result<ExitCode> {
    if Lock::is_taken(&context.data)? {
        return already_runs(context).await;
    }
    context.data.create()?;
    let mut report = Follower::of(context.data.log("supervisor"));
    let mut child = spawn(args, &context.data, &report.path)?;
    loop {
        let ended = child.try_wait()?;
        report.print_new()?;
        if ended.is_some() {
            return match state(&context.data).await? {
                // Another `up` was faster.
                Some(state) if state.stack != StackState::Failed && Lock::is_taken(&context.data)? => {
                    already_runs(context).await
                }
                _ => Ok(ExitCode::FAILURE),
            };
        }
        if let Some(state) = State::read(&context.data)?
            && state.supervisor.pid == child.id()
            && state.stack == StackState::Ready
        {
            report.print_new()?;
            show(context.json, &state)?;
            eprintln!("all is ready and stays so; symphony down stops it");
            return Ok(ExitCode::SUCCESS);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn spawn(args: &Args, data: &DataDir, report: &Path) -> anyhow::Result<Child> {
    let output = log::open(report)?;
    let errors = output.try_clone()?;
    let mut command = Command::new(std::env::current_exe().context("finding this program")?);
    command.arg("up").arg("--stay").arg("--data-dir").arg(data.root());
    if args.servers_only {
        command.arg("--servers-only");
    }
    command.stdin(Stdio::null()).stdout(output).stderr(errors);
    command.spawn().context("starting the process that stays")
}

/// Shows what the process that stays reports.
struct Follower {
    path: PathBuf,
    end: u64,
}

impl Follower {
    fn of(path: PathBuf) -> Self {
        let end = log::length(&path);
        Self { path, end }
    }

    fn print_new(&mut self) -> anyhow::Result<()> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.end))?;
        let mut text = Vec::new();
        self.end += file.read_to_end(&mut text)? as u64;
        eprint!("{}", String::from_utf8_lossy(&text));
        Ok(())
    }
}
