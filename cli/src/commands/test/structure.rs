//! Rules of the tree that no compiler checks.

use tokio::process::Command;

use super::business;
use super::run::{Runner, cargo};

/// No file is longer.
const LONGEST: usize = 800;
/// Files that tools write, or that are data: lock files, the contracts, pictures.
const NOT_WRITTEN: &[&str] = &["lock", "json", "svg", "png"];
/// Crates that stay pure: a machine and a vocabulary, without runtime, network, or database. All that each may depend on.
const PURE: &[(&str, &[&str])] = &[
    ("saga", &["chrono", "schemars", "serde", "serde-saphyr", "serde_json", "sha2", "thiserror", "uuid"]),
    ("orders", &["chrono", "iso_currency", "rust_iso3166", "schemars", "serde", "serde_json", "thiserror", "uuid"]),
];

/// Tells everything that breaks a rule.
pub(super) async fn check(runner: &Runner) -> anyhow::Result<bool> {
    let mut broken = long_files(runner).await?;
    broken.extend(business::check(runner).await?);
    for (package, allowed) in PURE {
        let mut tree =
            cargo(["tree", "--edges", "normal,build", "--depth", "1", "--prefix", "none", "--format", "{p}"]);
        tree.args(["--package", package]);
        let tree = runner.output(tree).await?;
        broken.extend(impure(package, allowed, &tree).map(|name| format!("{package} is pure but depends on {name}")));
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

/// The crates in a listing of `cargo tree` that are neither `package` itself nor `allowed`.
fn impure<'t>(package: &str, allowed: &[&str], tree: &'t str) -> impl Iterator<Item = &'t str> {
    let names = tree.lines().filter_map(|line| line.split_whitespace().next());
    names.filter(move |name| *name != package && !allowed.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pure_crate_may_depend_on_what_is_listed_and_nothing_else() {
        let found = |tree| impure("saga", &["serde"], tree).collect::<Vec<_>>();
        assert!(found("saga v0.1.0 (/x)\nserde v1.0.0\n").is_empty());
        assert_eq!(found("saga v0.1.0 (/x)\nserde v1.0.0\ntokio-util v0.7.0\n"), ["tokio-util"]);
    }
}
