//! `symphony status`

use std::process::ExitCode;

use super::supervisor;
use crate::{Context, output};

#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example:\n  symphony status --json | jq '.components[] | {name, state, url}'")]
pub struct Args {}

pub async fn run(_args: &Args, context: &Context) -> anyhow::Result<ExitCode> {
    match supervisor::state(&context.data).await? {
        Some(state) if context.json => outln!("{}", output::json(&state)?),
        Some(state) => outln!("{}", output::table(&state)),
        None if context.json => outln!(r#"{{"stack":"stopped","components":[]}}"#),
        None => eprintln!("no stack was ever started in {}", context.data.root().display()),
    }
    Ok(ExitCode::SUCCESS)
}
