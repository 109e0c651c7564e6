//! A folder that is not a backup yet.

use std::fs::{DirBuilder, File, TryLockError};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::layout::create_dir;

/// Beside the folder that it becomes, always under the same name: what a killed process left, the next one removes.
const NAME: &str = ".unfinished-backup";

/// Removed when it is dropped unfinished.
pub(super) struct Unfinished {
    folder: PathBuf,
    /// The folder around it, locked: one backup at a time is taken in it.
    parent: File,
}

impl Unfinished {
    /// A new, empty folder that only its owner can enter.
    pub(super) fn make(target: &Path) -> Result<Self, Error> {
        let around = target.parent().ok_or_else(|| Error::Other(format!("{} is no new folder", target.display())))?;
        create_dir(around)?;
        let doing = || Error::io(format!("locking {}", around.display()));
        let parent = File::open(around).map_err(doing())?;
        match parent.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Other(format!("another backup is being taken in {}", around.display())));
            }
            Err(TryLockError::Error(error)) => return Err(doing()(error)),
        }
        let folder = around.join(NAME);
        if folder.exists() {
            std::fs::remove_dir_all(&folder).map_err(Error::io(format!("removing {}", folder.display())))?;
        }
        DirBuilder::new().mode(0o700).create(&folder).map_err(Error::io(format!("creating {}", folder.display())))?;
        Ok(Self { folder, parent })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Gives it its name, for good. Whatever has that name by now stays.
    pub(super) fn finish(self, target: &Path) -> Result<(), Error> {
        std::fs::rename(&self.folder, target)
            .and_then(|()| self.parent.sync_all())
            .map_err(Error::io(format!("finishing {}", target.display())))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Nothing is there if it was finished; what cannot be removed now the next one removes.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_unfinished_is_removed_and_two_at_once_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("backup");
        std::fs::create_dir(root.path().join(NAME)).unwrap();
        std::fs::write(root.path().join(NAME).join("left"), "").unwrap();
        let first = Unfinished::make(&target).unwrap();
        assert_eq!(std::fs::read_dir(first.folder()).unwrap().count(), 0);
        assert!(Unfinished::make(&root.path().join("other")).is_err_and(|error| error.to_string().contains("another")));
        drop(first);
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);

        let second = Unfinished::make(&target).unwrap();
        std::fs::write(second.folder().join("file"), "").unwrap();
        second.finish(&target).unwrap();
        assert!(target.join("file").exists());
    }

    #[test]
    fn what_has_the_name_of_a_backup_by_the_time_it_is_finished_stays() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("backup");
        let unfinished = Unfinished::make(&target).unwrap();
        std::fs::create_dir(&target).unwrap();
        std::fs::write(target.join("theirs"), "").unwrap();
        assert!(unfinished.finish(&target).is_err());
        assert!(target.join("theirs").exists());
    }
}
