//! What the workspace may depend on: the rules of `deny.toml`, checked without the network.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use serde::Deserialize;

use super::licence;
use super::run::{Runner, cargo};

/// The part of `deny.toml` (the format of cargo-deny) that is checked here.
#[derive(Deserialize)]
struct Rules {
    licenses: Licences,
    bans: Bans,
}

#[derive(Deserialize)]
struct Licences {
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Banned>,
    /// Crates of which more than one version is accepted.
    skip: Vec<Skipped>,
}

#[derive(Deserialize)]
struct Banned {
    name: String,
    reason: String,
}

#[derive(Deserialize)]
struct Skipped {
    name: String,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    /// Where it comes from; none for the workspace's own.
    source: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
}

/// Tells every dependency that breaks a rule.
pub(super) async fn check(runner: &Runner) -> anyhow::Result<bool> {
    let file = runner.root().join("deny.toml");
    let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let rules: Rules = toml::from_str(&text).with_context(|| file.display().to_string())?;
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let metadata = cargo(["metadata", "--format-version", "1", "--locked", "--filter-platform", &platform]);
    let metadata: Metadata = serde_json::from_str(&runner.output(metadata).await?)?;
    let broken = broken(&rules, &metadata);
    for rule in &broken {
        eprintln!("{rule}");
    }
    Ok(broken.is_empty())
}

fn broken(rules: &Rules, metadata: &Metadata) -> Vec<String> {
    let used: BTreeSet<&str> = metadata.resolve.nodes.iter().map(|node| node.id.as_str()).collect();
    let foreign = metadata.packages.iter().filter(|package| used.contains(package.id.as_str()));
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut broken = Vec::new();
    for package in foreign.filter(|package| package.source.is_some()) {
        let Package { name, version, .. } = package;
        versions.entry(name).or_default().push(version);
        let licence = package.license.as_deref().unwrap_or_default();
        if !licence::is_allowed(licence, &rules.licenses.allow) {
            broken.push(format!("{name} {version} has the licence {licence:?}, which deny.toml does not allow"));
        }
        if !package.source.as_deref().is_some_and(|source| source.starts_with("registry+")) {
            broken.push(format!("{name} {version} does not come from a registry"));
        }
        broken.extend(
            rules
                .bans
                .deny
                .iter()
                .filter(|banned| banned.name == *name)
                .map(|banned| format!("{name} {version} is banned: {}", banned.reason)),
        );
    }
    for (name, versions) in &versions {
        let accepted = rules.bans.skip.iter().any(|skipped| skipped.name == *name);
        if versions.len() > 1 && !accepted {
            broken.push(format!("{name} is there {} times: {}", versions.len(), versions.join(", ")));
        }
    }
    for skipped in &rules.bans.skip {
        if versions.get(skipped.name.as_str()).is_none_or(|versions| versions.len() < 2) {
            broken.push(format!("deny.toml accepts duplicates of {}, which has none", skipped.name));
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licences_bans_and_duplicates_are_found() {
        let rules = r#"
            [licenses]
            allow = ["MIT"]
            [bans]
            deny = [{ name = "openssl", reason = "no C for TLS" }]
            skip = [{ name = "rand", reason = "two worlds" }, { name = "gone", reason = "was two" }]
        "#;
        let package = |name: &str, version: &str, licence: &str| {
            serde_json::json!({ "id": format!("{name}{version}"), "name": name, "version": version, "license": licence,
                "source": "registry+x" })
        };
        let packages = [
            package("rand", "1.0.0", "MIT"),
            package("rand", "2.0.0", "MIT"),
            package("syn", "1.0.0", "MIT"),
            package("syn", "2.0.0", "MIT"),
            package("openssl", "1.0.0", "MIT"),
            package("viral", "1.0.0", "GPL-3.0"),
        ];
        let nodes: Vec<_> = packages.iter().map(|package| serde_json::json!({ "id": package["id"] })).collect();
        let metadata = serde_json::json!({ "packages": packages, "resolve": { "nodes": nodes } });
        let found = broken(&toml::from_str(rules).unwrap(), &serde_json::from_value(metadata).unwrap());
        let about = ["openssl", "viral", "syn", "gone"];
        assert_eq!(found.len(), about.len(), "{found:?}");
        assert!(about.iter().all(|name| found.iter().any(|rule| rule.contains(name))), "{found:?}");
    }
}
