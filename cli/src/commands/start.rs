//! `symphony start`

use std::process::ExitCode;

use stack::supervisor::control::Request;

use super::supervisor;
use crate::Context;

#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example:\n  symphony start notification-svc")]
pub struct Args {
    /// A component as `symphony status` lists it: NAME, or NAME/INSTANCE for one of several
    name: String,
}

pub async fn run(args: &Args, context: &Context) -> anyhow::Result<ExitCode> {
    let name = args.name.clone();
    let done = format!("{name} ready");
    supervisor::change(context, &Request::Start { name }, &done).await?;
    Ok(ExitCode::SUCCESS)
}
