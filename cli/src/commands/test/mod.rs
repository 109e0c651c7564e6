//! `symphony test`: everything that says whether this tree is fit.

mod business;
mod dependencies;
mod licence;
mod run;
mod structure;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;
use serde::Serialize;
use stack::ports::Ports;
use stack::servers::{self, Running};
use stack::{DataDir, Repository};
use tokio::signal::unix::{SignalKind, signal};
use uuid::Uuid;

use crate::{Context, soak};
use run::{Runner, cargo};

#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Examples:\n  symphony test --fast\n  symphony test --soak --minutes 20")]
pub struct Args {
    /// Leave out whatever needs servers: format, lints, unit tests and the rules of the tree only
    #[arg(long)]
    fast: bool,

    /// Nothing of that, but many faults on a stack of its own, under a load of orders, with an audit at the end
    #[arg(long, conflicts_with = "fast")]
    soak: bool,

    #[command(flatten)]
    soaking: Soaking,
}

/// What only `--soak` needs.
#[derive(clap::Args, Clone, Debug)]
struct Soaking {
    /// How long faults are injected; 20 is enough for each of them twice
    #[arg(long, requires = "soak", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1440))]
    minutes: u32,

    /// Which faults come when: the same number gives the same schedule [default: drawn]
    #[arg(long, requires = "soak")]
    seed: Option<u64>,

    /// Orders a second, more than the 50 that have to be accepted
    #[arg(long, requires = "soak", default_value_t = 55)]
    #[arg(value_parser = clap::value_parser!(u32).range(ABOVE_LEAST_RATE..=1000))]
    rate: u32,

    /// Only kinds of faults whose names contain one of these words, separated by commas
    #[arg(long, requires = "soak", value_delimiter = ',')]
    only: Vec<String>,

    /// The file of the report [default: soak-SEED.json in the data folder]
    #[arg(long, requires = "soak", value_name = "FILE")]
    out: Option<PathBuf>,
}

/// A load that is answered a moment later is accepted a little more slowly than it is placed.
const ABOVE_LEAST_RATE: i64 = soak::LEAST_RATE as i64 + 1;

/// Tests that run at the same time, on however many cores.
const MOST_AT_ONCE: usize = 4;

/// One part of the run.
#[derive(Debug, Serialize)]
struct Stage {
    name: &'static str,
    seconds: f64,
    passed: bool,
}

/// What the run found.
#[derive(Debug, Default, Serialize)]
struct Summary {
    stages: Vec<Stage>,
    /// The summary lines of the test runners, as they print them, and the tests that could not be done here.
    results: Vec<String>,
}

/// Runs every stage, also after one that failed, and prints the time of each. It fails if one does.
pub async fn run(args: &Args, context: &Context) -> anyhow::Result<ExitCode> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    if args.soak {
        let options = args.soaking.options(context);
        let report = tokio::select! {
            done = Box::pin(soak::run(&options)) => done?,
            _ = interrupt.recv() => anyhow::bail!("interrupted"),
            _ = terminate.recv() => anyhow::bail!("terminated"),
        };
        if context.json {
            println!("{}", serde_json::to_string(&report)?);
        } else {
            println!("{report}");
        }
        return Ok(if report.passed { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let mut summary = Summary::default();
    // Dropping the stages ends what they have started.
    tokio::select! {
        done = stages(args, &mut summary) => done?,
        _ = interrupt.recv() => anyhow::bail!("interrupted"),
        _ = terminate.recv() => anyhow::bail!("terminated"),
    }
    let passed = summary.stages.iter().all(|stage| stage.passed);
    if context.json {
        println!("{}", serde_json::to_string(&summary)?);
    } else {
        print!("{summary}");
    }
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Soaking {
    fn options(&self, context: &Context) -> soak::Options {
        // Short, so that somebody can type it.
        let seed = self.seed.unwrap_or_else(|| Uuid::new_v4().as_u64_pair().0 % 1_000_000);
        let Self { minutes, rate, only, .. } = self.clone();
        let out = self.out.clone().unwrap_or_else(|| context.data.root().join(format!("soak-{seed}.json")));
        soak::Options { minutes, seed, rate, only, out }
    }
}

async fn stages(args: &Args, summary: &mut Summary) -> anyhow::Result<()> {
    let repository = Repository::find()?;
    let runner = Runner::new(repository.root());
    summary.stage("format", runner.run(cargo(["fmt", "--all", "--check"]))).await?;
    let lints = cargo(["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]);
    summary.stage("lints", runner.run(lints)).await?;
    summary.stage("structure", structure::check(&runner)).await?;
    summary.stage("dependencies", dependencies::check(&runner)).await?;
    // The services' programs and the examples too: the integration tests run them.
    let programs = cargo(["build", "--release", "--workspace", "--lib", "--bins", "--examples", "--quiet"]);
    if !summary.stage("build", runner.run(programs)).await? {
        return Ok(());
    }
    let unit = cargo(["test", "--release", "--workspace", "--lib", "--bins", "--no-fail-fast"]);
    summary.stage("unit tests", runner.run_tests(unit)).await?;
    // Test binaries that need no server, chosen by name: choosing packages would unify features anew, and build
    // the dependencies once more.
    let mut pure = cargo(["test", "--release", "--workspace", "--no-fail-fast"]);
    pure.args(["--test", "machine", "--test", "contracts", "--test", "sim"]);
    summary.stage("property and contract tests", runner.run_tests(pure)).await?;
    if !args.fast {
        summary.stage("integration tests", integration(&runner)).await?;
    }
    summary.results = runner.results();
    Ok(())
}

/// Runs the tests that need servers, on servers of their own.
async fn integration(runner: &Runner) -> anyhow::Result<bool> {
    // Compiled before the servers start, so that a mistake costs no start.
    let every = ["test", "--release", "--workspace", "--test", "it"];
    let mut compile = cargo(every);
    compile.args(["--no-run", "--quiet"]);
    if !runner.run(compile).await? {
        return Ok(false);
    }
    let folder = tempfile::Builder::new().prefix("symphony-test-").tempdir().context("a folder for the servers")?;
    let (running, description) = start_servers(folder.path()).await?;

    let skipped = folder.path().join("skipped");
    let mut tests = cargo(every);
    tests.arg("--no-fail-fast").env("SYMPHONY_TEST_SERVERS", &description).env("SYMPHONY_TEST_SKIPPED", &skipped);
    // A test may run all services: more at once than this would measure the servers, whatever the machine.
    if std::env::var_os("RUST_TEST_THREADS").is_none() {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        tests.env("RUST_TEST_THREADS", cores.min(MOST_AT_ONCE).to_string());
    }
    let passed = runner.run_tests(tests).await;
    running.stop().await;
    // Written by tests that cannot be done on this machine, and pass.
    for line in std::fs::read_to_string(&skipped).unwrap_or_default().lines() {
        runner.add_result(format!("SKIPPED: {line}"));
    }
    passed
}

/// Starts servers with their data in `folder`, which is opened to all, on ports that nobody has, whatever else runs on
/// this machine. Returns the file that tells the tests where they are, too.
pub async fn start_servers(folder: &Path) -> anyhow::Result<(Running, PathBuf)> {
    // PostgreSQL may run as another user: what it had to put elsewhere would outlive the folder.
    std::fs::set_permissions(folder, Permissions::from_mode(0o755)).with_context(|| folder.display().to_string())?;
    let data = DataDir::at(folder)?;
    let announce = |cache: &Path| eprintln!("fetching the servers into {}", cache.display());
    let running = servers::start_all(&data, Ports::FREE, announce).await?;
    let ports = running.endpoints.ports;
    let description = folder.join("servers.json");
    let text = serde_json::json!({ "postgres": ports.postgres, "kafka": ports.kafka, "connect": ports.connect });
    std::fs::write(&description, text.to_string())?;
    Ok((running, description))
}

impl Summary {
    async fn stage(
        &mut self,
        name: &'static str,
        work: impl Future<Output = anyhow::Result<bool>>,
    ) -> anyhow::Result<bool> {
        eprintln!("--- {name}");
        let start = Instant::now();
        // A stage that could not be run has failed; the others still tell something.
        let passed = work.await.unwrap_or_else(|error| {
            eprintln!("error: {error:#}");
            false
        });
        self.stages.push(Stage { name, seconds: start.elapsed().as_secs_f64(), passed });
        Ok(passed)
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for stage in &self.stages {
            let verdict = if stage.passed { "ok" } else { "FAILED" };
            writeln!(f, "{:<28} {:>7.1} s  {verdict}", stage.name, stage.seconds)?;
        }
        for result in &self.results {
            writeln!(f, "{result}")?;
        }
        Ok(())
    }
}
