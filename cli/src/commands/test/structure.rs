//! Rules of the tree that no compiler checks.

use tokio::process::Command;

use super::run::{Runner, cargo};

/// No file is longer.
const LONGEST: usize = 800;
/// Files that tools write, or that are data.
const NOT_WRITTEN: &[&str] = &["lock", "json", "svg", "png"];
/// Crates that stay pure, and what they may never depend on.
const PURE: &[&str] = &["saga", "orders"];
const IMPURE: &[&str] = &["tokio", "sqlx", "rdkafka", "axum", "hyper", "reqwest"];

/// Tells everything that breaks a rule.
pub(super) async fn check(runner: &Runner) -> anyhow::Result<bool> {
    let mut broken = long_files(runner).await?;
    for package in PURE {
        let tree = cargo(["tree", "--edges", "normal", "--prefix", "none", "--format", "{p}", "-p", package]);
        let tree = runner.output(tree).await?;
        broken.extend(impure(&tree).map(|name| format!("{package} is pure but depends on {name}")));
    }
    for rule in &broken {
        eprintln!("{rule}");
    }
    Ok(broken.is_empty())
}

async fn long_files(runner: &Runner) -> anyhow::Result<Vec<String>> {
    let mut list = Command::new("git");
    // What is not committed yet counts, what is ignored does not.
    list.args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"]);
    let files = runner.output(list).await?;
    let mut long = Vec::new();
    for file in files.split('\0').filter(|file| !file.is_empty()) {
        let extension = file.rsplit_once('.').map_or("", |(_, extension)| extension);
        let Ok(content) = std::fs::read(runner.root().join(file)) else { continue };
        let lines = content.split(|byte| *byte == b'\n').count();
        if lines > LONGEST && !NOT_WRITTEN.contains(&extension) {
            long.push(format!("{file} has {lines} lines, more than {LONGEST}"));
        }
    }
    Ok(long)
}

/// The crates in a listing of `cargo tree` that do input or output.
fn impure(tree: &str) -> impl Iterator<Item = &str> {
    tree.lines().filter_map(|line| line.split_whitespace().next()).filter(|name| IMPURE.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pure_crate_is_told_from_one_that_reaches_the_network() {
        assert_eq!(impure("saga v0.1.0 (/x)\nserde v1.0.0\n").count(), 0);
        assert_eq!(impure("saga v0.1.0 (/x)\ntokio v1.54.1\n").collect::<Vec<_>>(), ["tokio"]);
    }
}
