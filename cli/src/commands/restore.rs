//! `symphony restore`

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use stack::backup::{self, Interrupted, Source};
use stack::ports::Ports;
use stack::provision::{Names, databases, topics};
use stack::servers::Servers;
use stack::supervisor::{self, Lock, Report};
use stack::{Repository, fetch, launch};

use crate::Context;
use crate::recovery::{self, Recovered, Target};

#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example:\n  symphony down && symphony restore /backups/monday --yes && symphony up --detach \
    && symphony audit")]
pub struct Args {
    /// The folder that `symphony backup` made
    #[arg(required_unless_present = "align")]
    backup: Option<PathBuf>,

    /// Do not ask. What is there is replaced and kept aside; with --align, records of Kafka are deleted
    #[arg(long)]
    yes: bool,

    /// The databases were restored by other means: only bring Kafka and lost orders to their point
    #[arg(long, conflicts_with = "backup", requires_all = ["postgres", "kafka"])]
    align: bool,

    /// With --align: `host:port` of PostgreSQL
    #[arg(long, requires = "align")]
    postgres: Option<String>,

    /// With --align: `host:port` of a Kafka broker
    #[arg(long, requires = "align")]
    kafka: Option<String>,
}

/// Restores, and prints what was done.
pub async fn run(args: &Args, context: &Context) -> anyhow::Result<ExitCode> {
    let recovered = match (&args.backup, &args.postgres, &args.kafka) {
        (Some(folder), ..) => restore(folder, args.yes, context).await?,
        (None, Some(postgres), Some(kafka)) => {
            let question = format!("delete the records of all saga topics but order.created on {kafka}?");
            if !args.yes && !wants(&question, "this deletes the records of all saga topics but order.created")? {
                return Ok(ExitCode::FAILURE);
            }
            let (postgres, kafka) = (postgres.clone(), kafka.clone());
            Some(recovery::align(&Target { postgres, kafka, ..Target::default() }).await?)
        }
        _ => None,
    };
    let Some(recovered) = recovered else { return Ok(ExitCode::FAILURE) };
    if context.json {
        outln!("{}", serde_json::to_string(&recovered)?);
    } else {
        outln!("{recovered}");
        eprintln!("next: symphony up --detach, and when the orders have ended: symphony audit");
    }
    Ok(ExitCode::SUCCESS)
}

/// `None` if the user does not want to.
async fn restore(folder: &Path, yes: bool, context: &Context) -> anyhow::Result<Option<Recovered>> {
    let source = Source::read(&context.data, folder)?;
    let Some(lock) = Lock::take(&context.data)? else {
        bail!("a stack runs in {}: symphony down first", context.data.root().display());
    };
    let data = lock.data();
    let report = Report::new(|line| eprintln!("{line}"));
    supervisor::end_leftovers(data, &report).await?;
    let files = fetch::ensure(|cache| eprintln!("fetching the servers into {}", cache.display())).await?;
    let servers = Servers::new(data, &files, Ports::FREE)?;
    let point = source.taken_at.format("%Y-%m-%d %H:%M:%S%.3f UTC").to_string();
    let question = format!("go back to {point}? What is there is kept aside.");
    let consequence = "this replaces the databases that are there (they are kept aside)";
    if servers.postgres.cluster().exists() && !yes && !wants(&question, consequence)? {
        return Ok(None);
    }
    let placed = backup::place(&lock, &servers.postgres, source).await?;
    if placed.was_done {
        eprintln!("an earlier restore was interrupted, this one goes on where it ended");
    }
    eprintln!("databases as of {point} are in {}", servers.postgres.cluster().display());
    if let Some(kept) = &placed.kept {
        eprintln!("what was there is kept in {}", kept.display());
    }

    let recovered = with_servers(&servers, recover(&servers, context)).await?;
    Interrupted::end(data)?;
    Ok(Some(recovered))
}

/// Does `work` while the database and the broker run, and ends these cleanly whatever came of it.
async fn with_servers<T>(servers: &Servers, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let mut database = launch::start(servers.postgres.as_ref()).await?;
    let worked = async {
        let mut broker = launch::start(servers.kafka.as_ref()).await?;
        let worked = work.await;
        launch::stop(servers.kafka.as_ref(), &mut broker).await;
        worked
    }
    .await;
    launch::stop(servers.postgres.as_ref(), &mut database).await;
    worked
}

async fn recover(servers: &Servers, context: &Context) -> anyhow::Result<Recovered> {
    let (repository, endpoints) = (Repository::find()?, &servers.endpoints);
    // The backup may be older than the last migration, and the broker may be a new one.
    databases::ensure(endpoints, &repository, "").await?;
    let missing = topics::missing(endpoints, &repository, "").await?;
    if !missing.is_empty() {
        topics::note_lost(endpoints, &Names::default(), &missing).await?;
        eprintln!("Kafka has lost {} topics: they are made again", missing.len());
    }
    topics::create(endpoints, &missing).await?;
    backup::renew_capture(&context.data, endpoints).await?;
    let postgres = format!("127.0.0.1:{}", endpoints.ports.postgres);
    recovery::align(&Target { postgres, kafka: endpoints.kafka(), ..Target::default() }).await
}

/// Asks a person; nobody else can agree but by `--yes`.
fn wants(question: &str, consequence: &str) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("{consequence}: say --yes");
    }
    eprint!("{question} [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context("reading the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
