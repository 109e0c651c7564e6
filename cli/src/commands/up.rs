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

use super::supervisor::ask_running;
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
    let lock = loop {
        if let Some(lock) = Lock::take(&context.data)? {
            break lock;
        }
        if let Some(state) = other(context).await? {
            // Whoever started a process that stays shows the stack itself.
            return if args.stay { Ok(ExitCode::SUCCESS) } else { runs_already(context, &state) };
        }
    };
    let program = std::env::current_exe().context("finding this program")?;
    let programs = program.parent().map(Path::to_path_buf).unwrap_or_default();
    let options = Options { servers_only: args.servers_only, ..Options::new(Repository::find()?, programs) };
    let (json, stay) = (context.json, args.stay);
    let ready = move |state: &State| {
        if stay {
            return;
        }
        // Nobody may be reading; that is no reason to end the stack.
        let _ = show(json, state);
        eprintln!("all is ready; Ctrl-C stops it. In another terminal: symphony order --watch");
    };
    supervisor::run(lock, options, Report::new(|line| eprintln!("{line}")), ready).await?;
    Ok(ExitCode::SUCCESS)
}

/// Waits until the stack that another `up` started is ready. `None` when it has ended instead.
async fn other(context: &Context) -> anyhow::Result<Option<State>> {
    let mut said = false;
    while Lock::is_taken(&context.data)? {
        match ask_running(&context.data).await? {
            Some(state) if state.stack == StackState::Ready => return Ok(Some(state)),
            // One that has just begun or is about to end does not listen.
            other if !said => {
                let starting = other.is_none_or(|state| state.stack == StackState::Starting);
                let doing = if starting { "starting" } else { "ending" };
                eprintln!("a stack in {} is {doing}, waiting for that", context.data.root().display());
                said = true;
            }
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(None)
}

fn runs_already(context: &Context, state: &State) -> anyhow::Result<ExitCode> {
    eprintln!("the stack runs already (process {})", state.supervisor.pid);
    show(context.json, state)?;
    Ok(ExitCode::SUCCESS)
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
    if let Some(state) = other(context).await? {
        return runs_already(context, &state);
    }
    context.data.create()?;
    let mut report = Follower::of(context.data.log("supervisor"));
    let mut child = spawn(args, &context.data, &report.path)?;
    loop {
        let ended = child.try_wait()?;
        report.print_new()?;
        if ended.is_some() {
            // Another `up` may have been faster; then ours has waited for it.
            return match ask_running(&context.data).await? {
                Some(state) if state.stack == StackState::Ready => runs_already(context, &state),
                _ if ended.is_some_and(|status| status.success()) => Err(anyhow!("stopped before all was ready")),
                _ => Ok(ExitCode::FAILURE),
            };
        }
        if let Some(state) = State::read(&context.data)?
            && state.supervisor.pid == child.id()
            && state.stack == StackState::Ready
        {
            report.print_new()?;
            show(context.json, &state)?;
            eprintln!("all is ready and keeps running; symphony down stops it. Try: symphony order --watch");
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
