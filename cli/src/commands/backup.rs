//! `symphony backup`

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::anyhow;
use chrono::Utc;
use serde_json::json;

use super::supervisor::ask_running;
use crate::Context;
use crate::api::Api;

#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example:\n  symphony backup --to /backups/monday")]
pub struct Args {
    /// The folder to make [default: backups/TIME in the data directory]
    #[arg(long, value_name = "FOLDER")]
    to: Option<PathBuf>,
}

/// Copies the running cluster; prints the folder.
pub async fn run(args: &Args, context: &Context) -> anyhow::Result<ExitCode> {
    ask_running(&context.data)
        .await?
        .ok_or_else(|| anyhow!("no stack runs here: symphony up, or symphony up --servers-only"))?;
    let address = Api::new(context.data.state_file())?.address("postgres")?;
    let default = || context.data.backups().join(Utc::now().format("%Y%m%dT%H%M%SZ").to_string());
    let folder = std::path::absolute(args.to.clone().unwrap_or_else(default))?;
    let began = Instant::now();
    let manifest = stack::backup::take(&address, &folder).await?;
    if context.json {
        let told = json!({ "folder": folder, "takenAt": manifest.taken_at, "lsn": manifest.stop_lsn,
            "files": manifest.files.len(), "bytes": manifest.bytes });
        outln!("{told}");
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!(
        "all databases as of {} UTC: {} files, {} MB, in {:.1} s",
        manifest.taken_at.format("%Y-%m-%d %H:%M:%S%.3f"),
        manifest.files.len(),
        manifest.bytes / 1_000_000,
        began.elapsed().as_secs_f32()
    );
    outln!("{}", folder.display());
    Ok(ExitCode::SUCCESS)
}
