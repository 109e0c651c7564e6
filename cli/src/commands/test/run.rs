//! Running the tools, showing their output, and keeping the lines that sum it up.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

/// Runs commands in the root of the repository.
pub(super) struct Runner {
    root: PathBuf,
    results: Mutex<Vec<String>>,
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
    pub(super) async fn run(&self, mut command: Command) -> anyhow::Result<bool> {
        let program = command.as_std().get_program().display().to_string();
        command.current_dir(&self.root).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("starting {program}"))?;
        let output = child.stdout.take().context("the output of a child")?;
        let mut lines = BufReader::new(output).split(b'\n');
        while let Some(line) = lines.next_segment().await? {
            let line = String::from_utf8_lossy(&line).into_owned();
            eprintln!("{line}");
            if line.starts_with("test result:") {
                self.add_result(line);
            }
        }
        Ok(child.wait().await?.success())
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
