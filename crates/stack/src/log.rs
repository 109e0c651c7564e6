//! The components' log files.
//!
//! A component appends to its file itself, so nothing stands between it and its log. When a file has grown
//! over the cap, its content moves to `<name>.log.1` and it starts again from empty.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::Error;

/// Size at which a log starts again, in bytes.
pub const CAP: u64 = 16 * 1024 * 1024;
/// Lines and bytes of the end of a log that an error message shows.
const TAIL_LINES: usize = 25;
const TAIL_BYTES: u64 = 16 * 1024;

/// Opens a log for appending.
pub fn open(path: &Path) -> Result<File, Error> {
    OpenOptions::new().create(true).append(true).open(path).map_err(Error::io(format!("opening {}", path.display())))
}

/// Length of the log in bytes; 0 when there is none.
pub fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// Starts the log again if it has grown over `cap`. Lines written in between may be lost.
pub fn rotate(path: &Path, cap: u64) -> io::Result<bool> {
    if length(path) <= cap {
        return Ok(false);
    }
    std::fs::copy(path, rotated(path))?;
    // The writers have it open for appending, so they go on at the new end.
    OpenOptions::new().write(true).open(path)?.set_len(0)?;
    Ok(true)
}

/// Where the older part of a log is.
pub fn rotated(path: &Path) -> PathBuf {
    path.with_added_extension("1")
}

/// The last lines written after `since` (a length from before), each indented, under a line that names the file.
pub fn tail(path: &Path, since: u64) -> String {
    match last_bytes(path, since) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
            let shown = &lines[lines.len().saturating_sub(TAIL_LINES)..];
            if shown.is_empty() {
                return format!("it wrote nothing to {}", path.display());
            }
            shown.iter().fold(format!("the end of {}:", path.display()), |all, line| all + "\n    " + line)
        }
        Err(error) => format!("its log {} cannot be read: {error}", path.display()),
    }
}

fn last_bytes(path: &Path, since: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let from = since.min(length).max(length.saturating_sub(TAIL_BYTES));
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_writer_goes_on_after_its_log_was_started_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        let mut writer = open(&path).unwrap();
        writer.write_all(b"old line\n").unwrap();
        assert!(!rotate(&path, 100).unwrap());
        assert!(rotate(&path, 5).unwrap());
        writer.write_all(b"new line\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new line\n");
        assert_eq!(std::fs::read_to_string(rotated(&path)).unwrap(), "old line\n");
    }

    #[test]
    fn a_tail_shows_only_what_came_after_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        std::fs::write(&path, "before\nafter 1\nafter 2\n").unwrap();
        let shown = tail(&path, 7);
        assert!(shown.ends_with(":\n    after 1\n    after 2"), "{shown}");
        assert!(tail(&path, 500).contains("wrote nothing"));
    }
}
