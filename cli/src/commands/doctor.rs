//! `symphony doctor`

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use comfy_table::{Table, presets};
use nix::unistd::{AccessFlags, access};
use serde::Serialize;
use stack::provision::connector::Status;
use stack::provision::{Names, OutboxConnector, slot};
use stack::servers::Endpoints;
use stack::supervisor::state::Phase;
use stack::supervisor::{Lock, SERVICES};
use stack::user::User;
use stack::{Repository, fetch, ports, servers};

use super::supervisor;
use crate::Context;

const JAVA_PACKAGE: &str = "package default-jre-headless of Debian";
/// What a stack takes on a quiet machine, with room for a load.
const MEMORY_NEEDED_MB: u64 = 2_000;
/// Servers 150 MB, PostgreSQL's log up to 4 GB under load.
const DISK_NEEDED_MB: u64 = 3_000;

#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example:\n  symphony doctor --json | jq '.checks[] | select(.verdict != \"ok\")'")]
pub struct Args {}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    /// Works all the same.
    Note,
    Bad,
}

#[derive(Debug, Serialize)]
struct Check {
    name: String,
    verdict: Verdict,
    detail: String,
}

pub async fn run(_args: &Args, context: &Context) -> anyhow::Result<ExitCode> {
    let running = Lock::is_taken(&context.data)?;
    let mut checks = vec![java(), tool("setpriv", "util-linux"), database_user(), files(), programs()];
    checks.push(disk("disk for data", context.data.root()));
    if let Ok(cache) = fetch::cache_dir() {
        checks.push(disk("disk for the servers' files", &cache));
    }
    if running {
        checks.extend(stack(context).await);
    } else {
        checks.push(memory());
        checks.push(free_ports());
    }
    print(&checks, context.json)?;
    let bad = checks.iter().any(|check| check.verdict == Verdict::Bad);
    Ok(if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn print(checks: &[Check], json: bool) -> anyhow::Result<()> {
    if json {
        outln!("{}", serde_json::to_string_pretty(&serde_json::json!({ "checks": checks }))?);
        return Ok(());
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for check in checks {
        let verdict = match check.verdict {
            Verdict::Ok => "ok",
            Verdict::Note => "note",
            Verdict::Bad => "BAD",
        };
        table.add_row([verdict, &check.name, &check.detail]);
    }
    outln!("{}", table.trim_fmt());
    Ok(())
}

fn check(name: impl Into<String>, verdict: Verdict, detail: impl Into<String>) -> Check {
    Check { name: name.into(), verdict, detail: detail.into() }
}

fn java() -> Check {
    let output = Command::new(servers::java()).arg("-version").stdin(Stdio::null()).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stderr).into_owned()).unwrap_or_default();
    match java_version(&text) {
        Some(version) if version >= 17 => check("java", Verdict::Ok, format!("version {version}")),
        Some(version) => {
            check("java", Verdict::Bad, format!("version {version}; 17 or newer is needed ({JAVA_PACKAGE})"))
        }
        None => check("java", Verdict::Bad, format!("not found; 17 or newer is needed ({JAVA_PACKAGE})")),
    }
}

/// The number before the first dot of `openjdk version "17.0.15" 2025-04-15`.
fn java_version(text: &str) -> Option<u32> {
    let (_, rest) = text.split_once("version \"")?;
    rest.split(|byte: char| !byte.is_ascii_digit()).next()?.parse().ok()
}

fn tool(name: &str, package: &str) -> Check {
    let found = Command::new(name).arg("--version").stdin(Stdio::null()).output().is_ok();
    if found {
        check(name, Verdict::Ok, "found")
    } else {
        check(name, Verdict::Bad, format!("not found; package {package} of Debian"))
    }
}

fn database_user() -> Check {
    match User::unprivileged() {
        Ok(None) => check("user of PostgreSQL", Verdict::Ok, "yours"),
        Ok(Some(user)) => check("user of PostgreSQL", Verdict::Ok, format!("{}, as you are root", user.name)),
        Err(error) => check("user of PostgreSQL", Verdict::Bad, error.chain()),
    }
}

/// With the files in the cache, nothing is needed to fetch them.
fn files() -> Check {
    const NAME: &str = "servers' files";
    match fetch::cached() {
        Ok(Some(_)) => check(NAME, Verdict::Ok, "in the cache"),
        Ok(None) => {
            let lacking: Vec<String> = [("mvn", "maven"), ("tar", "tar"), ("xz", "xz-utils")]
                .into_iter()
                .filter(|(name, package)| tool(name, package).verdict == Verdict::Bad)
                .map(|(name, package)| format!("{name} (package {package} of Debian)"))
                .collect();
            if lacking.is_empty() {
                check(NAME, Verdict::Note, "not in the cache; the next start fetches about 75 MB")
            } else {
                check(NAME, Verdict::Bad, format!("not in the cache; to fetch them is missing: {}", lacking.join(", ")))
            }
        }
        Err(error) => check(NAME, Verdict::Bad, error.chain()),
    }
}

fn programs() -> Check {
    let folder = std::env::current_exe().ok().and_then(|program| program.parent().map(Path::to_path_buf));
    let folder = folder.unwrap_or_default();
    let missing: Vec<&str> =
        SERVICES.iter().map(|service| service.name).filter(|name| !folder.join(name).is_file()).collect();
    if missing.is_empty() {
        check("services", Verdict::Ok, format!("built in {}", folder.display()))
    } else {
        check("services", Verdict::Bad, format!("not built: {}; ./symphony up builds them", missing.join(", ")))
    }
}

fn memory() -> Check {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kilobytes = available.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    match kilobytes.map(|kilobytes| kilobytes / 1_000) {
        Some(free) if free >= MEMORY_NEEDED_MB => check("memory", Verdict::Ok, format!("{free} MB available")),
        Some(free) => {
            check("memory", Verdict::Bad, format!("{free} MB available; a stack needs {MEMORY_NEEDED_MB} MB"))
        }
        None => check("memory", Verdict::Note, "/proc/meminfo does not tell"),
    }
}

fn disk(name: &str, folder: &Path) -> Check {
    // A folder that is not there yet will be on the disk of its nearest parent.
    let there: Option<PathBuf> = folder.ancestors().find(|parent| parent.exists()).map(Path::to_path_buf);
    if let Some(Err(error)) = there.as_deref().map(|folder| access(folder, AccessFlags::W_OK)) {
        return check(name, Verdict::Bad, format!("{} cannot be written: {}", folder.display(), error.desc()));
    }
    let space = there.as_deref().map(nix::sys::statvfs::statvfs);
    match space {
        Some(Ok(space)) => {
            let free = space.blocks_available() * space.fragment_size() / 1_000_000;
            let detail = format!("{free} MB free at {}", folder.display());
            check(name, if free >= DISK_NEEDED_MB { Verdict::Ok } else { Verdict::Bad }, detail)
        }
        _ => check(name, Verdict::Note, format!("{} does not tell", folder.display())),
    }
}

fn free_ports() -> Check {
    let defaults = ports::Ports::DEFAULT;
    let servers = [defaults.postgres, defaults.kafka, defaults.connect];
    let all = servers.into_iter().chain(SERVICES.iter().map(|service| service.port));
    let taken: Vec<String> = all.filter(|port| !ports::is_free(*port)).map(|port| port.to_string()).collect();
    if taken.is_empty() {
        check("ports", Verdict::Ok, "the usual ones are free")
    } else {
        check("ports", Verdict::Note, format!("taken, so free ones will be used instead: {}", taken.join(", ")))
    }
}

/// How the running stack does.
async fn stack(context: &Context) -> Vec<Check> {
    let state = match supervisor::state(&context.data).await {
        Ok(Some(state)) => state,
        Ok(None) => return Vec::new(),
        Err(error) => return vec![check("supervisor", Verdict::Bad, format!("{error:#}"))],
    };
    let component = |component: &stack::supervisor::state::ComponentState| {
        let verdict = match component.state {
            Phase::Ready => Verdict::Ok,
            Phase::Starting | Phase::Stopped => Verdict::Note,
            Phase::Failed => Verdict::Bad,
        };
        let reason = component.reason.as_deref().and_then(|reason| reason.lines().next());
        let detail = reason.map_or_else(String::new, |reason| format!(": {reason}"));
        check(component.label(), verdict, format!("{}{detail}", component.state.as_str()))
    };
    let mut checks: Vec<Check> = state.components.iter().map(component).collect();
    if let Some(endpoints) = supervisor::endpoints(&state) {
        checks.push(replication_slot(&endpoints).await);
        checks.push(connector(&endpoints).await);
    }
    checks
}

async fn replication_slot(endpoints: &Endpoints) -> Check {
    const NAME: &str = "replication slot";
    match slot::find(endpoints, &Names::default()).await {
        Ok(Some(slot)) if slot.lost => check(
            NAME,
            Verdict::Bad,
            "lost: PostgreSQL dropped log that was not read; `symphony repair slot` replaces it",
        ),
        Ok(Some(slot)) if !slot.active => check(NAME, Verdict::Bad, "nobody reads from it"),
        Ok(Some(slot)) => {
            check(NAME, Verdict::Ok, format!("read up to {}", slot.confirmed.as_deref().unwrap_or("an unknown place")))
        }
        Ok(None) => {
            check(NAME, Verdict::Bad, "gone: `symphony repair slot` makes a new one and publishes open orders again")
        }
        Err(error) => check(NAME, Verdict::Bad, error.chain()),
    }
}

async fn connector(endpoints: &Endpoints) -> Check {
    const NAME: &str = "outbox connector";
    let status = async { OutboxConnector::load(&Repository::find()?, endpoints, &Names::default())?.status().await };
    match status.await {
        Ok(Status::Running) => check(NAME, Verdict::Ok, "runs"),
        Ok(Status::Failed { reason }) => check(NAME, Verdict::Bad, format!("failed: {reason}")),
        Ok(Status::Absent) => check(NAME, Verdict::Bad, "Connect does not know it"),
        Ok(Status::Other(word)) => check(NAME, Verdict::Note, word),
        Err(error) => check(NAME, Verdict::Bad, error.chain()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_java_version_is_read_from_what_java_prints() {
        assert_eq!(java_version("openjdk version \"17.0.15\" 2025-04-15\n..."), Some(17));
        assert_eq!(java_version("java version \"25\" 2025-09-16"), Some(25));
        assert_eq!(java_version("bash: java: command not found"), None);
    }
}
