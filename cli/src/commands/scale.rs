//! `symphony scale`

use std::process::ExitCode;

use stack::supervisor::control::Request;

use super::supervisor;
use crate::Context;

#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example:\n  symphony scale orchestrator 2")]
pub struct Args {
    /// Name of a service
    name: String,

    /// How many instances shall run
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    instances: u32,
}

pub async fn run(args: &Args, context: &Context) -> anyhow::Result<ExitCode> {
    let Args { name, instances } = args;
    let request = Request::Scale { name: name.clone(), instances: *instances };
    supervisor::change(context, &request, &format!("{name} runs {instances} times")).await?;
    Ok(ExitCode::SUCCESS)
}
