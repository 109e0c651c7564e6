//! `symphony completions`

use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::Cli;

#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example:\n  symphony completions bash > ~/.local/share/bash-completion/completions/symphony")]
pub struct Args {
    /// For which shell
    shell: Shell,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    clap_complete::generate(args.shell, &mut Cli::command(), "symphony", &mut std::io::stdout());
    Ok(ExitCode::SUCCESS)
}
