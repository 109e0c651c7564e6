//! Rules of the tree that no compiler checks.

use tokio::process::Command;

use super::business;
use super::run::{Runner, cargo};

/// No file is longer.
const LONGEST: usize = 800;
/// Files that tools write, or that are data: lock files, the contracts, pictures.
const NOT_WRITTEN: &[&str] = &["lock", "json", "svg", "png"];
/// Crates that stay pure: a machine and a vocabulary, without runtime, network, or database. All that each may depend on
/// itself; what comes with these is looked at for [`IMPURE`].
const PURE: &[(&str, &[&str])] = &[
    ("saga", &["chrono", "schemars", "serde", "serde-saphyr", "serde_json", "sha2", "thiserror", "uuid"]),
    ("orders", &["chrono", "iso_currency", "rust_iso3166", "schemars", "serde", "serde_json", "thiserror", "uuid"]),
];

/// Crates that bring a runtime, a network or a database along, also at the end of a long way.
const IMPURE: &[&str] = &[
    "async-std",
    "axum",
    "curl",
    "h2",
    "hyper",
    "hyper-util",
    "libsqlite3-sys",
    "messaging",
    "mio",
    "native-tls",
    "openssl",
    "polling",
    "postgres-protocol",
    "rdkafka",
    "rdkafka-sys",
    "reqwest",
    "rustls",
    "service-kit",
    "smol",
    "socket2",
    "sqlx",
    "sqlx-core",
    "sqlx-postgres",
    "tokio",
    "tokio-postgres",
    "tonic",
    "tower",
    "ureq",
];

/// Tells everything that breaks a rule.
pub(super) async fn check(runner: &Runner) -> anyhow::Result<bool> {
    let mut broken = long_files(runner).await?;
    broken.extend(business::check(runner).await?);
    for (package, allowed) in PURE {
        let mut tree = cargo(["tree", "--edges", "normal,build", "--prefix", "depth", "--format", " {p}"]);
        tree.args(["--package", package]);
        let tree = runner.output(tree).await?;
        broken.extend(impure(allowed, &tree).map(|way| format!("{package} is pure but depends on {way}")));
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

/// The ways, in a listing of `cargo tree` with depths, to each crate that a pure one must not have: one that it names
/// itself and that is not `allowed`, or one of [`IMPURE`] however it comes.
fn impure(allowed: &[&str], tree: &str) -> impl Iterator<Item = String> {
    let mut way: Vec<&str> = Vec::new();
    tree.lines().filter_map(move |line| {
        let mut words = line.split_whitespace();
        let depth: usize = words.next()?.parse().ok()?;
        let name = words.next()?;
        way.truncate(depth);
        way.push(name);
        let is_broken = IMPURE.contains(&name) || (depth == 1 && !allowed.contains(&name));
        // The crate itself is no part of the way.
        (depth > 0 && is_broken).then(|| way[1..].join(", by it on "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pure_crate_may_name_what_is_listed_and_nothing_else() {
        let found = |tree| impure(&["serde"], tree).collect::<Vec<_>>();
        assert!(found("0 saga v0.1.0 (/x)\n1 serde v1.0.0\n2 itoa v1.0.0\n").is_empty());
        assert_eq!(found("0 saga v0.1.0 (/x)\n1 serde v1.0.0\n1 base64 v0.22.0\n"), ["base64"]);
    }

    #[test]
    fn what_does_input_or_output_is_found_at_the_end_of_every_way_to_it() {
        let tree = "0 saga v0.1.0 (/x)
1 serde v1.0.0
2 serde_core v1.0.0
1 uuid v1.0.0
2 getrandom v0.3.0
3 mio v1.0.0
3 libc v0.2.0
2 serde v1.0.0 (*)
1 chrono v0.4.0
2 tokio v1.0.0
3 mio v1.0.0 (*)
";
        let found: Vec<_> = impure(&["serde", "uuid", "chrono"], tree).collect();
        let ways = [
            "uuid, by it on getrandom, by it on mio",
            "chrono, by it on tokio",
            "chrono, by it on tokio, by it on mio",
        ];
        assert_eq!(found, ways);
    }
}
