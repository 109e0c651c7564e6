//! `symphony down`

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use stack::supervisor::control::{Client, Request};
use stack::supervisor::{self, Lock, Report};
use stack::{DataDir, wipe};

use crate::{Context, output};

/// From the last answer of the supervisor until its process is gone.
const GONE_WITHIN: Duration = Duration::from_secs(15);

#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example:\n  symphony down --wipe")]
pub struct Args {
    /// Also remove all data: orders, sagas, topics, logs
    #[arg(long)]
    wipe: bool,
}

pub async fn run(args: &Args, context: &Context) -> anyhow::Result<ExitCode> {
    let data = &context.data;
    // A folder of somebody else's may have a `logs` in it too: nothing there is ours to end or remove.
    if !data.lock_file().exists() {
        eprintln!("no stack was ever started in {}", data.root().display());
        return Ok(ExitCode::SUCCESS);
    }
    if Lock::is_taken(data)? {
        end_supervisor(context).await?;
    } else {
        eprintln!("nothing runs in {}", data.root().display());
    }
    let lock = until_free(data).await?;
    supervisor::end_leftovers(data, &Report::new(|line| eprintln!("{line}"))).await?;
    if args.wipe {
        wipe::wipe(data, lock)?;
        eprintln!("data removed");
    }
    Ok(ExitCode::SUCCESS)
}

async fn end_supervisor(context: &Context) -> anyhow::Result<()> {
    let started = Instant::now();
    // One that has just begun or is about to end holds the lock without listening.
    while Lock::is_taken(&context.data)? {
        if let Some(client) = Client::send(&context.data, &Request::Down).await? {
            let state = client.finish(|text| eprintln!("{text}")).await?;
            if context.json {
                outln!("{}", output::json(&state)?);
            }
            return Ok(());
        }
        if started.elapsed() > GONE_WITHIN {
            bail!("a supervisor holds {} but does not listen", context.data.lock_file().display());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

async fn until_free(data: &DataDir) -> anyhow::Result<Lock> {
    let started = Instant::now();
    loop {
        if let Some(lock) = Lock::take(data)? {
            return Ok(lock);
        }
        if started.elapsed() > GONE_WITHIN {
            return Err(anyhow!("the supervisor still runs after {} s", GONE_WITHIN.as_secs()));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
