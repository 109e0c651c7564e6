//! The servers' files: named in one `pom.xml`, fetched by Maven, kept in a cache.
//!
//! A cache entry is keyed by the content of the `pom.xml` and appears by a rename, so it is whole or absent.
//! With the entry there, Maven is not needed and nothing is read from the network.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use sha2::{Digest, Sha256};
use tokio::process::Command;

use crate::Error;
use crate::layout::create_dir;

const POM: &str = include_str!("../pom.xml");
/// Raised when the layout of an entry changes though the `pom.xml` does not.
const LAYOUT: &str = "1";

/// The files of the servers.
#[derive(Clone, Debug)]
pub struct Files {
    root: PathBuf,
}

impl Files {
    /// Java class path of the broker and of Connect.
    pub fn kafka_class_path(&self) -> PathBuf {
        self.root.join("kafka/*")
    }

    /// The folder in which Connect finds the Debezium connector.
    pub fn connect_plugins(&self) -> PathBuf {
        self.root.join("plugins")
    }

    /// PostgreSQL: `bin`, `lib` and `share`.
    pub fn postgres(&self) -> PathBuf {
        self.root.join("postgres")
    }

    /// The key of the entry, which changes with the versions.
    pub fn key(&self) -> String {
        self.root.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

/// Where entries are kept: `SYMPHONY_CACHE`, else for root a folder that the user PostgreSQL runs as can read,
/// else the user's cache folder.
pub fn cache_dir() -> Result<PathBuf, Error> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(chosen) = set("SYMPHONY_CACHE") {
        return std::path::absolute(&chosen).map_err(Error::io(format!("resolving {}", chosen.display())));
    }
    if nix::unistd::geteuid().is_root() {
        return Ok(PathBuf::from("/var/cache/chaos-symphony"));
    }
    let base = set("XDG_CACHE_HOME").filter(|path| path.is_absolute());
    base.or_else(|| set("HOME").map(|home| home.join(".cache"))).map(|base| base.join("chaos-symphony")).ok_or_else(
        || Error::Other("neither SYMPHONY_CACHE nor HOME is set: no place to keep the servers' files".into()),
    )
}

/// The entry of this version if it was fetched before.
pub fn cached() -> Result<Option<Files>, Error> {
    let root = cache_dir()?.join(key());
    Ok(root.is_dir().then_some(Files { root }))
}

/// The servers' files, fetched if they are not in the cache. `announce` is called before a fetch, which takes
/// about ten seconds and 75 MB. Of two callers at once, one fetches and the other waits.
pub async fn ensure(announce: impl FnOnce(&Path)) -> Result<Files, Error> {
    if let Some(files) = cached()? {
        return Ok(files);
    }
    let cache = cache_dir()?;
    create_dir(&cache)?;
    let _lock = lock(cache.join("lock")).await?;
    if let Some(files) = cached()? {
        return Ok(files);
    }
    announce(&cache);
    let root = cache.join(key());
    let unfinished = root.with_added_extension("unfinished");
    remove(&unfinished)?;
    create_dir(&unfinished)?;
    let pom = unfinished.join("pom.xml");
    std::fs::write(&pom, POM).map_err(Error::io(format!("writing {}", pom.display())))?;
    maven(&unfinished).await?;
    unpack_postgres(&unfinished).await?;
    std::fs::rename(&unfinished, &root).map_err(Error::io(format!("finishing {}", root.display())))?;
    Ok(Files { root })
}

fn key() -> String {
    let digest = Sha256::new().chain_update(LAYOUT).chain_update(std::env::consts::ARCH).chain_update(POM).finalize();
    digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn lock(path: PathBuf) -> Result<File, Error> {
    let doing = format!("locking {}", path.display());
    let locked = tokio::task::spawn_blocking(move || {
        let file = File::options().create(true).truncate(false).write(true).open(&path)?;
        file.lock()?;
        Ok(file)
    });
    locked.await.unwrap_or_else(|error| Err(std::io::Error::other(error))).map_err(Error::io(doing))
}

async fn maven(root: &Path) -> Result<(), Error> {
    let mut command = Command::new("mvn");
    command.args(["--batch-mode", "--quiet", "--no-transfer-progress", "process-resources"]);
    command.arg(format!("-Dinto={}", root.display())).current_dir(root);
    run("fetching the servers with Maven", command).await
}

/// The artefact is a jar with one archive in it, which in turn holds PostgreSQL.
async fn unpack_postgres(root: &Path) -> Result<(), Error> {
    let wrapped = root.join("postgres-archive");
    let entries = std::fs::read_dir(&wrapped).map_err(Error::io(format!("reading {}", wrapped.display())))?;
    let archive = entries
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "txz"))
        .ok_or_else(|| Error::Other(format!("{} holds no .txz archive", wrapped.display())))?;
    let target = root.join("postgres");
    create_dir(&target)?;
    let mut command = Command::new("tar");
    command
        .arg("--extract")
        .arg("--xz")
        .arg("--no-same-owner")
        .arg("--file")
        .arg(&archive)
        .arg("--directory")
        .arg(&target);
    run("unpacking PostgreSQL with tar and xz", command).await?;
    remove(&wrapped)
}

/// Runs a helper program to its end; an error shows the end of what it printed.
pub(crate) async fn run(doing: &str, mut command: Command) -> Result<(), Error> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.map_err(Error::io(doing.to_owned()))?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(4_000)..]).into_owned();
    Err(Error::Tool { doing: doing.into(), status: crate::launch::describe(output.status), output: text })
}

fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("removing {}", path.display()))(error))
        }
        _ => Ok(()),
    }
}
