//! Putting a backup where a stack's cluster is.
//!
//! The files are copied and checked beside the cluster first. Then two renames put the cluster aside and the copy in its
//! place. A file in the data directory says from before the first rename until the whole restore is done that nothing may
//! start, so a restore that was killed anywhere is done by the same command again.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::copy::{blocking, copy, flush};
use super::manifest::{Manifest, cluster as files_of};
use crate::layout::{create_dir, write_atomically};
use crate::servers::Postgres;
use crate::supervisor::Lock;
use crate::user::User;
use crate::{DataDir, Error};

/// What comes after the cluster's name, before the time, where a replaced one is kept.
pub(crate) const REPLACED: &str = "replaced-";

/// The backup that is put back.
#[derive(Debug)]
pub struct Source {
    folder: PathBuf,
    /// The point that it goes back to.
    pub taken_at: DateTime<Utc>,
    /// An error when the folder is gone or damaged since a restore of it has begun.
    manifest: Result<Manifest, Error>,
}

impl Source {
    /// Reads the backup in `folder`. One whose restore has begun in `data` is known without its folder too.
    ///
    /// # Errors
    /// When there is no backup, and no restore of it has begun.
    pub fn read(data: &DataDir, folder: &Path) -> Result<Self, Error> {
        let manifest = Manifest::read(folder);
        let folder = folder.canonicalize().or_else(|_| std::path::absolute(folder));
        let folder = folder.map_err(Error::io("resolving the folder of the backup"))?;
        let begun = Interrupted::read(data)?.filter(|begun| begun.backup == folder);
        match (manifest, begun) {
            (Ok(manifest), _) => Ok(Self { folder, taken_at: manifest.taken_at, manifest: Ok(manifest) }),
            (Err(error), Some(begun)) => Ok(Self { folder, taken_at: begun.taken_at, manifest: Err(error) }),
            (Err(error), None) => Err(error),
        }
    }
}

/// What was done.
#[derive(Clone, Debug)]
pub struct Placed {
    /// Where the cluster lies that was there before, if there was one.
    pub kept: Option<PathBuf>,
    /// An earlier restore of this backup was interrupted after this was done: it goes on from there.
    pub was_done: bool,
}

/// A restore that has begun and not ended, as `restore.json` in the data directory says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Interrupted {
    /// The backup's folder.
    pub backup: PathBuf,
    /// When it was taken.
    pub taken_at: DateTime<Utc>,
    /// Where the cluster is put that was there before.
    pub kept: Option<PathBuf>,
    /// The backup is where the cluster was.
    pub placed: bool,
}

impl Interrupted {
    /// `None` if no restore has begun, or it has ended.
    pub fn read(data: &DataDir) -> Result<Option<Self>, Error> {
        let file = data.restore_file();
        match std::fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .map_err(|error| Error::File { file: file.display().to_string(), detail: error.to_string() }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(format!("reading {}", file.display()))(error)),
        }
    }

    /// Fails while a restore is to be finished first.
    pub fn refuse(data: &DataDir) -> Result<(), Error> {
        match Self::read(data)? {
            Some(begun) => Err(Error::Other(format!(
                "a restore has begun here and not ended: finish it with `symphony restore {}`",
                begun.backup.display()
            ))),
            None => Ok(()),
        }
    }

    /// The restore is done: the stack may start.
    pub fn end(data: &DataDir) -> Result<(), Error> {
        let file = data.restore_file();
        std::fs::remove_file(&file).map_err(Error::io(format!("removing {}", file.display())))
    }

    fn write(&self, data: &DataDir) -> Result<(), Error> {
        let text = serde_json::to_vec(self).map_err(|error| Error::Other(error.to_string()))?;
        write_atomically(&data.restore_file(), &text)?;
        sync(data.root())
    }
}

/// Checks the backup and puts it where the cluster of `postgres` is, which must not run. What was there is kept beside it.
/// [`Interrupted::end`] must follow when everything else is restored too.
///
/// # Errors
/// When a file of the backup is damaged or missing; the error names it, and nothing has been replaced. A restore that was
/// interrupted before the backup was in its place is taken back too: the stack can start with what was there.
pub async fn place(lock: &Lock, postgres: &Postgres, source: Source) -> Result<Placed, Error> {
    let data = lock.data();
    let begun = Interrupted::read(data)?;
    if begun.as_ref().is_some_and(|begun| begun.taken_at != source.taken_at) {
        Interrupted::refuse(data)?;
    }
    let there = postgres.cluster().to_path_buf();
    let was_placed = begun.as_ref().filter(|begun| begun.placed);
    // Unless somebody has removed the cluster since.
    if let Some(begun) = was_placed.filter(|_| there.join("PG_VERSION").is_file()) {
        return Ok(Placed { kept: begun.kept.clone(), was_done: true });
    }
    let fresh = match checked_copy(postgres, &source.folder, source.manifest).await {
        Ok(fresh) => fresh,
        Err(error) => {
            // Of one that was in its place Kafka may have been brought to its point by now: there is no way back.
            if let Some(begun) = begun.filter(|begun| !begun.placed) {
                take_back(&there, begun.kept.as_deref())?;
                Interrupted::end(data)?;
            }
            return Err(error);
        }
    };
    let placed = was_placed.is_some();
    let kept = begun.map_or_else(|| aside(&there), |begun| begun.kept);
    let mut state = Interrupted { backup: source.folder, taken_at: source.taken_at, kept, placed };
    state.write(data)?;
    swap(&there, &fresh, state.kept.as_deref())?;
    state.placed = true;
    state.write(data)?;
    Ok(Placed { kept: state.kept, was_done: false })
}

/// A copy of the backup in `folder` beside the cluster, every file of it checked.
async fn checked_copy(postgres: &Postgres, folder: &Path, manifest: Result<Manifest, Error>) -> Result<PathBuf, Error> {
    let manifest = manifest?;
    let major = postgres.major().await?;
    if major != manifest.server_major() {
        let version = &manifest.server_version;
        return Err(Error::Other(format!(
            "the backup is of PostgreSQL {version}, which PostgreSQL {major} cannot read"
        )));
    }
    let fresh = postgres.empty_cluster().await?;
    let (source, target) = (files_of(folder), fresh.clone());
    let user = postgres.user().cloned();
    blocking(move || {
        fill(&source, &target, &manifest, user.as_ref()).inspect_err(|_| {
            // Of no use to anybody; the next try would remove it too.
            let _ = std::fs::remove_dir_all(&target);
        })
    })
    .await?;
    Ok(fresh)
}

/// Where a cluster is put that is replaced now; `None` if there is none.
fn aside(cluster: &Path) -> Option<PathBuf> {
    let now = Utc::now().format("%Y%m%dT%H%M%SZ");
    cluster.exists().then(|| cluster.with_added_extension(format!("{REPLACED}{now}")))
}

/// Copies the backup's files into an empty folder and gives them to `user`.
fn fill(source: &Path, target: &Path, manifest: &Manifest, user: Option<&User>) -> Result<(), Error> {
    let give = |path: &Path| user.map_or(Ok(()), |user| user.give(path));
    for folder in &manifest.folders {
        let folder = target.join(folder);
        create_dir(&folder)?;
        give(&folder)?;
    }
    for entry in &manifest.files {
        let damaged = |what: String| {
            Error::Other(format!(
                "the backup is damaged: {} {what}; nothing was changed",
                source.join(&entry.path).display()
            ))
        };
        let found = copy(source, target, &entry.path)?.ok_or_else(|| damaged("is missing".into()))?;
        if found.size != entry.size {
            return Err(damaged(format!("has {} bytes instead of {}", found.size, entry.size)));
        }
        if found.sha256 != entry.sha256 {
            return Err(damaged("has another content than when it was written".into()));
        }
        give(&target.join(&entry.path))?;
    }
    flush(target)
}

/// Puts `fresh` where the cluster is, and the cluster where it is kept, if that was not done by an earlier try.
fn swap(cluster: &Path, fresh: &Path, kept: Option<&Path>) -> Result<(), Error> {
    match kept {
        Some(kept) if !kept.exists() && cluster.exists() => rename(cluster, kept)?,
        // An earlier try came this far: what is there is its copy, and nothing has used it.
        _ => remove(cluster)?,
    }
    rename(fresh, cluster)?;
    sync(cluster.parent().unwrap_or(cluster))
}

/// Undoes what an earlier try has done of [`swap`].
fn take_back(cluster: &Path, kept: Option<&Path>) -> Result<(), Error> {
    match kept {
        Some(kept) if kept.exists() => {
            remove(cluster)?;
            rename(kept, cluster)?;
        }
        // It came to nothing.
        Some(_) => {}
        None => remove(cluster)?,
    }
    sync(cluster.parent().unwrap_or(cluster))
}

fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    std::fs::rename(from, to).map_err(Error::io(format!("moving {} to {}", from.display(), to.display())))
}

fn remove(folder: &Path) -> Result<(), Error> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Error::io(format!("removing {}", folder.display()))(error))
        }
        _ => Ok(()),
    }
}

fn sync(folder: &Path) -> Result<(), Error> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(Error::io(format!("flushing {}", folder.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(path: &Path, content: &str) {
        std::fs::create_dir_all(path).unwrap();
        std::fs::write(path.join("content"), content).unwrap();
    }

    fn content(path: &Path) -> String {
        std::fs::read_to_string(path.join("content")).unwrap()
    }

    #[test]
    fn the_cluster_that_was_there_first_is_kept_wherever_a_try_was_killed() {
        for renames in 0..=2 {
            let root = tempfile::tempdir().unwrap();
            let at = |name: &str| root.path().join(name);
            let (cluster, fresh, kept) = (at("cluster"), at("fresh"), at("kept"));
            folder(&cluster, "first");
            folder(&fresh, "of the killed try");
            if renames > 0 {
                std::fs::rename(&cluster, &kept).unwrap();
            }
            if renames > 1 {
                std::fs::rename(&fresh, &cluster).unwrap();
            } else {
                std::fs::remove_dir_all(&fresh).unwrap();
            }
            folder(&fresh, "restored");
            swap(&cluster, &fresh, Some(&kept)).unwrap();
            assert_eq!((content(&cluster), content(&kept)), ("restored".into(), "first".into()), "{renames}");
        }
    }

    #[test]
    fn a_restore_is_taken_back_wherever_a_try_was_killed() {
        for renames in 0..=2 {
            let root = tempfile::tempdir().unwrap();
            let at = |name: &str| root.path().join(name);
            let (cluster, kept) = (at("cluster"), at("kept"));
            folder(&cluster, "first");
            if renames > 0 {
                std::fs::rename(&cluster, &kept).unwrap();
            }
            if renames > 1 {
                folder(&cluster, "of the killed try");
            }
            take_back(&cluster, Some(&kept)).unwrap();
            assert_eq!((content(&cluster), kept.exists()), ("first".into(), false), "{renames}");
        }
        let root = tempfile::tempdir().unwrap();
        let cluster = root.path().join("cluster");
        folder(&cluster, "of the killed try");
        for _ in 0..2 {
            take_back(&cluster, None).unwrap();
            assert!(!cluster.exists(), "there was none");
        }
    }

    #[test]
    fn a_begun_restore_is_known_when_its_backup_is_gone_and_no_other_is() {
        let root = tempfile::tempdir().unwrap();
        let data = DataDir::at(root.path()).unwrap();
        let backup = data.root().join("backup");
        assert!(Source::read(&data, &backup).is_err());
        let begun = Interrupted { backup: backup.clone(), taken_at: Utc::now(), kept: None, placed: true };
        begun.write(&data).unwrap();
        let source = Source::read(&data, &backup).unwrap();
        assert_eq!((source.taken_at, source.manifest.is_err()), (begun.taken_at, true));
        assert!(Source::read(&data, &data.root().join("another")).is_err());
    }

    #[test]
    fn without_a_cluster_nothing_is_kept() {
        let root = tempfile::tempdir().unwrap();
        let (cluster, fresh) = (root.path().join("cluster"), root.path().join("fresh"));
        assert_eq!(aside(&cluster), None);
        for _ in 0..2 {
            folder(&fresh, "restored");
            swap(&cluster, &fresh, None).unwrap();
            assert_eq!(content(&cluster), "restored");
        }
    }

    #[test]
    fn a_begun_restore_keeps_the_stack_from_starting_until_it_has_ended() {
        let root = tempfile::tempdir().unwrap();
        let data = DataDir::at(root.path()).unwrap();
        Interrupted::refuse(&data).unwrap();
        let begun = Interrupted { backup: "/b".into(), taken_at: Utc::now(), kept: None, placed: true };
        begun.write(&data).unwrap();
        assert_eq!(Interrupted::read(&data).unwrap(), Some(begun));
        assert!(Interrupted::refuse(&data).unwrap_err().to_string().contains("symphony restore /b"));
        Interrupted::end(&data).unwrap();
        Interrupted::refuse(&data).unwrap();
    }
}
