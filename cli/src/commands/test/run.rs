//! Running the tools, showing their output, and keeping the lines that sum it up.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

/// Longer than any single test takes on a slow machine. Tests that say nothing for so long hang, and would only end with
/// the patience of whoever runs them.
const LONGEST_TEST: Duration = Duration::from_secs(15 * 60);

/// Runs commands in the root of the repository.
pub(super) struct Runner {
    root: PathBuf,
    results: Mutex<Vec<String>>,
}

/// The group of a process and whatever it has started, ended with the value: the tests of a `cargo` too.
struct Group(i32);

impl Drop for Group {
    fn drop(&mut self) {
        // Mostly nobody is left.
        let _ = killpg(Pid::from_raw(self.0), Signal::SIGKILL);
    }
}

/// `cargo` with `arguments`: the one that built this program, if it says so.
pub(super) fn cargo<const N: usize>(arguments: [&str; N]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments);
    command
}

impl Runner {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_path_buf(), results: Mutex::default() }
    }

    /// The root of the repository.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Runs `command` to its end; its output goes to stderr. Tells whether it succeeded.
    pub(super) async fn run(&self, command: Command) -> anyhow::Result<bool> {
        self.run_within(command, Duration::MAX).await
    }

    /// The same with tests, of which one may hang.
    pub(super) async fn run_tests(&self, command: Command) -> anyhow::Result<bool> {
        self.run_within(command, LONGEST_TEST).await
    }

    /// Runs `command`, and ends it with all its children when it writes no line for `silence`.
    async fn run_within(&self, mut command: Command, silence: Duration) -> anyhow::Result<bool> {
        let program = command.as_std().get_program().display().to_string();
        command.current_dir(&self.root).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).process_group(0);
        let mut child = command.spawn().with_context(|| format!("starting {program}"))?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Group);
        let output = child.stdout.take().context("the output of a child")?;
        let mut lines = BufReader::new(output).split(b'\n');
        let mut last = String::new();
        loop {
            let Ok(line) = tokio::time::timeout(silence, lines.next_segment()).await else {
                bail!("{program} was ended: nothing was heard for {} minutes after \"{last}\"", silence.as_secs() / 60);
            };
            let Some(line) = line? else { break };
            last = String::from_utf8_lossy(&line).into_owned();
            eprintln!("{last}");
            if last.starts_with("test result:") {
                self.add_result(last.clone());
            }
        }
        let ended = child.wait().await?;
        // Its number may be another's now.
        std::mem::forget(group);
        Ok(ended.success())
    }

    /// Keeps a line for the summary.
    pub(super) fn add_result(&self, line: String) {
        self.results.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    /// Runs `command` to its end and gives what it wrote to stdout.
    pub(super) async fn output(&self, mut command: Command) -> anyhow::Result<String> {
        let program = command.as_std().get_program().display().to_string();
        command.current_dir(&self.root).stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true);
        let output = command.output().await.with_context(|| format!("starting {program}"))?;
        anyhow::ensure!(output.status.success(), "{program} ended with {}", output.status);
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The summary lines so far; runs without a test are left out.
    pub(super) fn results(&self) -> Vec<String> {
        let results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        results.iter().filter(|line| !line.contains(" 0 passed; 0 failed;")).cloned().collect()
    }
}
