//! What is in a backup.

use std::path::{Component, Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::layout::write_atomically;

/// Of the layout of a backup's folder.
const FORMAT: u32 = 1;
const FILE: &str = "manifest.json";

/// The file `manifest.json` of a backup. The cluster's files are beside it in `cluster`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Of the layout of the folder; 1.
    pub format: u32,
    /// The point that a restore goes back to, by the database's clock.
    pub taken_at: DateTime<Utc>,
    /// Version of the program that took it.
    pub stack_version: String,
    /// PostgreSQL's full version, `18.1`.
    pub server_version: String,
    /// Where replay of the log begins.
    pub start_lsn: String,
    /// The point that a restore goes back to, in the log.
    pub stop_lsn: String,
    /// Sum of the files' sizes, in bytes.
    pub bytes: u64,
    /// Folders of the cluster, those too that are empty; parents first.
    pub folders: Vec<PathBuf>,
    /// Files of the cluster.
    pub files: Vec<Entry>,
}

/// A file of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Below the cluster's folder.
    pub path: PathBuf,
    /// In bytes.
    pub size: u64,
    /// SHA-256 of the content, in hex.
    pub sha256: String,
}

impl Manifest {
    pub(super) const FORMAT: u32 = FORMAT;

    /// Reads the manifest of the backup in `folder`.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let file = folder.join(FILE);
        let text = std::fs::read(&file).map_err(Error::io(format!(
            "{} is no backup: reading {}",
            folder.display(),
            file.display()
        )))?;
        let wrong = |detail: String| Error::File { file: file.display().to_string(), detail };
        let manifest: Self = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
        if manifest.format != FORMAT {
            return Err(wrong(format!("the backup has format {}, this program reads {FORMAT}", manifest.format)));
        }
        let paths = manifest.folders.iter().chain(manifest.files.iter().map(|entry| &entry.path));
        match paths.into_iter().find(|path| !path.components().all(|part| matches!(part, Component::Normal(_)))) {
            Some(path) => Err(wrong(format!("{} lies outside the cluster", path.display()))),
            None => Ok(manifest),
        }
    }

    pub(super) fn write(&self, folder: &Path) -> Result<(), Error> {
        let text = serde_json::to_vec_pretty(self).map_err(|error| Error::Other(error.to_string()))?;
        write_atomically(&folder.join(FILE), &text)
    }

    /// The first part of the server's version; only a server with the same one can read the files.
    pub fn server_major(&self) -> &str {
        self.server_version.split(['.', ' ']).next().unwrap_or_default()
    }
}

/// The cluster's files in the backup in `folder`.
pub(super) fn cluster(folder: &Path) -> PathBuf {
    folder.join("cluster")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(path: &str) -> Manifest {
        Manifest {
            format: FORMAT,
            taken_at: DateTime::UNIX_EPOCH,
            stack_version: "1".into(),
            server_version: "18.1 (Debian)".into(),
            start_lsn: "0/1".into(),
            stop_lsn: "0/2".into(),
            bytes: 1,
            folders: vec!["base".into()],
            files: vec![Entry { path: path.into(), size: 1, sha256: String::new() }],
        }
    }

    #[test]
    fn a_manifest_reads_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let written = manifest("base/1");
        written.write(folder.path()).unwrap();
        assert_eq!(Manifest::read(folder.path()).unwrap(), written);
        assert_eq!(written.server_major(), "18");
    }

    #[test]
    fn a_manifest_that_leads_out_of_the_cluster_or_has_another_format_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["../1", "/etc/1", "base/../../1"] {
            manifest(path).write(folder.path()).unwrap();
            let refused = Manifest::read(folder.path()).unwrap_err().to_string();
            assert!(refused.contains("lies outside the cluster"), "{refused}");
        }
        Manifest { format: 2, ..manifest("base/1") }.write(folder.path()).unwrap();
        assert!(Manifest::read(folder.path()).unwrap_err().to_string().contains("format 2"));
    }
}
