//! A folder that is not a backup yet.

use std::fs::{DirBuilder, File, TryLockError};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::layout::create_dir;

/// Beside the folder that it becomes, under another name. Removed when it is dropped unfinished; what a killed process
/// left is removed by the next one.
pub(super) struct Unfinished {
    folder: PathBuf,
    lock: PathBuf,
    /// Held: the kernel takes it back when we die.
    _held: File,
}

impl Unfinished {
    /// A new, empty folder that only its owner can enter.
    pub(super) fn make(target: &Path) -> Result<Self, Error> {
        let (folder, lock) = (target.with_added_extension("unfinished"), target.with_added_extension("lock"));
        if let Some(parent) = target.parent() {
            create_dir(parent)?;
        }
        let doing = || Error::io(format!("locking {}", lock.display()));
        let held = File::options().create(true).truncate(false).write(true).open(&lock).map_err(doing())?;
        match held.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Other(format!("another backup is being taken into {}", target.display())));
            }
            Err(TryLockError::Error(error)) => return Err(doing()(error)),
        }
        let unfinished = Self { folder, lock, _held: held };
        if unfinished.folder.exists() {
            std::fs::remove_dir_all(&unfinished.folder)
                .map_err(Error::io(format!("removing {}", unfinished.folder.display())))?;
        }
        let made = DirBuilder::new().mode(0o700).create(&unfinished.folder);
        made.map_err(Error::io(format!("creating {}", unfinished.folder.display())))?;
        Ok(unfinished)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Gives it its name, for good.
    pub(super) fn finish(self, target: &Path) -> Result<(), Error> {
        std::fs::rename(&self.folder, target).map_err(Error::io(format!("finishing {}", target.display())))?;
        let parent = target.parent().unwrap_or(target);
        File::open(parent)
            .and_then(|parent| parent.sync_all())
            .map_err(Error::io(format!("flushing {}", parent.display())))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Nothing is there if it was finished; what cannot be removed now the next one removes.
        let _ = std::fs::remove_dir_all(&self.folder);
        let _ = std::fs::remove_file(&self.lock);
    }
}
