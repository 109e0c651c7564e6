//! Which of the cluster's files a backup holds.

use std::io;
use std::path::{Path, PathBuf};

use super::copy::copy;
use super::manifest::Entry;
use crate::Error;
use crate::layout::create_dir;

/// Folders that the server needs and fills itself.
const EMPTY: [&str; 8] = [
    // The part of the log that belongs to the backup is copied at its end.
    "pg_wal",
    // A slot of another time would promise log that is not there.
    "pg_replslot",
    "pg_dynshmem",
    "pg_notify",
    "pg_serial",
    "pg_snapshots",
    "pg_stat_tmp",
    "pg_subtrans",
];
/// What belongs to the running server, wherever it lies, by the start of its name.
const LEFT_OUT: [&str; 4] = ["postmaster.", "pgsql_tmp", "pg_internal.init", "current_logfiles"];
/// Copied last, so it is not older than any other file.
const CONTROL: &str = "global/pg_control";
/// Bytes of a segment's name: timeline, high and low part, eight hex digits each.
const SEGMENT: usize = 24;
/// Segments of 16 MB: so many to a high part.
const SEGMENTS_PER_PART: u64 = 256;

/// What was copied.
#[derive(Debug, Default)]
pub(super) struct Copied {
    /// Parents first.
    pub(super) folders: Vec<PathBuf>,
    pub(super) files: Vec<Entry>,
}

/// Copies a cluster that may be running, without its log. Files that vanish meanwhile are left out: the log says so too.
pub(super) fn copy_cluster(from: &Path, to: &Path) -> Result<Copied, Error> {
    create_dir(to)?;
    let mut copied = Copied::default();
    copy_folder(from, to, Path::new(""), &mut copied)?;
    let control = copy(from, to, Path::new(CONTROL))?;
    copied.files.push(control.ok_or_else(|| Error::Other(format!("{} has no {CONTROL}", from.display())))?);
    Ok(copied)
}

fn copy_folder(from: &Path, to: &Path, folder: &Path, copied: &mut Copied) -> Result<(), Error> {
    let source = from.join(folder);
    let doing = || Error::io(format!("reading {}", source.display()));
    let entries = match std::fs::read_dir(&source) {
        Ok(entries) => entries,
        // A database that was dropped.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(doing()(error)),
    };
    for entry in entries {
        let entry = entry.map_err(doing())?;
        let (name, path) = (entry.file_name(), folder.join(entry.file_name()));
        if LEFT_OUT.iter().any(|start| name.as_encoded_bytes().starts_with(start.as_bytes())) {
            continue;
        }
        let kind = match entry.file_type() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            kind => kind.map_err(doing())?,
        };
        if kind.is_dir() {
            create_dir(&to.join(&path))?;
            copied.folders.push(path.clone());
            if !EMPTY.iter().any(|empty| Path::new(empty) == path) {
                copy_folder(from, to, &path, copied)?;
            }
        } else if !kind.is_file() {
            return Err(Error::Other(format!("{} is no plain file", from.join(path).display())));
        } else if path != Path::new(CONTROL) {
            copied.files.extend(copy(from, to, &path)?);
        }
    }
    Ok(())
}

/// Copies the segments of the log from `first` to `last`, all of which must be there, and the history of its timelines.
pub(super) fn copy_log(wal: &Path, cluster: &Path, first: &str, last: &str) -> Result<Vec<Entry>, Error> {
    let doing = || Error::io(format!("reading {}", wal.display()));
    let mut names = segments(first, last)
        .ok_or_else(|| Error::Other(format!("the log went from {first} to {last} during the backup")))?;
    for entry in std::fs::read_dir(wal).map_err(doing())? {
        let name = entry.map_err(doing())?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".history") {
            names.push(name);
        }
    }
    let missing = |name: &str| Error::Other(format!("{} went away during the backup", wal.join(name).display()));
    let from = wal.parent().unwrap_or(wal);
    names
        .iter()
        .map(|name| copy(from, cluster, &Path::new("pg_wal").join(name))?.ok_or_else(|| missing(name)))
        .collect()
}

/// The names of the segments from `first` to `last`; `None` if these don't follow each other on one timeline.
fn segments(first: &str, last: &str) -> Option<Vec<String>> {
    let parse = |name: &str| {
        let part = |range| u64::from_str_radix(name.get(range)?, 16).ok();
        (name.len() == SEGMENT).then_some(())?;
        Some((part(0..8)?, part(8..16)? * SEGMENTS_PER_PART + part(16..24)?))
    };
    let ((timeline, from), (same, to)) = (parse(first)?, parse(last)?);
    (timeline == same && from <= to).then_some(())?;
    let name = |number| format!("{timeline:08X}{:08X}{:08X}", number / SEGMENTS_PER_PART, number % SEGMENTS_PER_PART);
    Some((from..=to).map(name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_counted_over_the_end_of_their_low_part() {
        let names = segments("0000000200000001000000FE", "000000020000000200000001").unwrap();
        assert_eq!(
            names,
            [
                "0000000200000001000000FE",
                "0000000200000001000000FF",
                "000000020000000200000000",
                "000000020000000200000001"
            ]
        );
        assert_eq!(segments("000000010000000000000002", "000000010000000000000001"), None);
        assert_eq!(segments("000000010000000000000001", "000000020000000000000002"), None);
        assert_eq!(segments("short", "000000020000000000000002"), None);
    }

    #[test]
    fn what_belongs_to_the_running_server_is_left_out_and_its_folders_are_empty() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        for file in ["global/pg_control", "base/1/112", "base/1/pg_internal.init", "pg_wal/1", "pg_replslot/s/state"] {
            let file = from.join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, "content").unwrap();
        }
        std::fs::write(from.join("postmaster.pid"), "1").unwrap();
        let copied = copy_cluster(&from, &to).unwrap();
        let mut names: Vec<_> = copied.files.iter().map(|entry| entry.path.to_str().unwrap()).collect();
        assert_eq!(names.pop(), Some("global/pg_control"));
        assert_eq!(names, ["base/1/112"]);
        assert!(to.join("pg_wal").is_dir() && to.join("pg_replslot").is_dir());
        assert_eq!(std::fs::read_dir(to.join("pg_replslot")).unwrap().count(), 0);
    }
}
