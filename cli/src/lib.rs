//! The `symphony` command: one file a command in [`commands`].

#[macro_use]
mod output;

pub mod api;
pub mod audit;
pub mod certify;
pub mod commands;
pub mod recovery;
pub mod soak;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use stack::DataDir;

use crate::commands::Command;

/// Runs orders as sagas over Kafka and PostgreSQL, and proves that they survive faults
#[derive(Parser, Debug)]
#[command(name = "symphony", version, arg_required_else_help = true)]
#[command(after_help = "Example:\n  symphony up --detach && symphony order --watch")]
pub struct Cli {
    /// The folder of the stack's data [default: .symphony]
    #[arg(long, global = true, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,

    /// Print JSON for machines
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    command: Command,
}

/// What every command gets.
#[derive(Clone, Debug)]
pub struct Context {
    /// The stack that is meant.
    pub data: DataDir,
    /// Whether the user named its folder.
    pub named: bool,
    /// Print JSON on stdout.
    pub json: bool,
}

/// The whole program. Exit codes: 0 done, 1 failed, 2 wrong usage.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(code) => code,
        // Whoever read our output has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    if let Command::Up(arguments) = &cli.command {
        // Before there is a second thread or an open file.
        arguments.leave_the_caller()?;
    }
    let folder = cli.data_dir.clone().unwrap_or_else(default_data_dir);
    let context = Context { data: DataDir::at(&folder)?, named: cli.data_dir.is_some(), json: cli.json };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(cli.command.run(&context))
}

/// Beside the `symphony` script, which tells where that is; without it, in the current folder.
fn default_data_dir() -> PathBuf {
    let home = std::env::var_os("SYMPHONY_HOME").map(PathBuf::from).unwrap_or_default();
    home.join(Path::new(".symphony"))
}
