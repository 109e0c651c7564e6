//! One supervisor a data directory.

use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use crate::{DataDir, Error};

/// Until somebody who only looked has looked.
const A_MOMENT: Duration = Duration::from_millis(2);
const MOST_TRIES: u32 = 500;

/// The right to run the stack of a data directory. The kernel takes it back when the holder dies.
#[derive(Debug)]
pub struct Lock {
    data: DataDir,
    _file: File,
}

impl Lock {
    /// Takes the lock; `None` if a supervisor runs. Makes the directory and its folders.
    pub fn take(data: &DataDir) -> Result<Option<Self>, Error> {
        let path = data.lock_file();
        let mut tries = 1;
        loop {
            match hold(data.root(), &path) {
                Ok(Some(file)) => {
                    // Only now: whoever removes all data holds the lock.
                    data.create()?;
                    // Found by its real name from now on, as it exists.
                    return Ok(Some(Self { data: DataDir::at(data.root())?, _file: file }));
                }
                Ok(None) => return Ok(None),
                Err(error) if tries < MOST_TRIES && is_passing(&error) => std::thread::sleep(A_MOMENT),
                Err(error) => return Err(Error::io(format!("locking {}", path.display()))(error)),
            }
            tries += 1;
        }
    }

    /// Whether a supervisor runs. Writes nothing, and keeps nobody from taking the lock.
    pub fn is_taken(data: &DataDir) -> Result<bool, Error> {
        let path = data.lock_file();
        let doing = || Error::io(format!("looking at {}", path.display()));
        match File::open(&path) {
            Ok(file) => is_held(&file).map_err(doing()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(doing()(error)),
        }
    }

    /// The data directory, by its real name.
    pub fn data(&self) -> &DataDir {
        &self.data
    }
}

/// Whether somebody who removes all data, or looks, was in the way.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::AlreadyExists | ErrorKind::Interrupted)
}

/// Opens and locks the file; `None` if somebody holds it.
fn hold(root: &Path, path: &Path) -> io::Result<Option<File>> {
    std::fs::create_dir_all(root)?;
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    match file.try_lock() {
        // Its last holder may have removed it (`down --wipe`) after we opened it. A lock on a file without its name
        // keeps nobody out.
        Ok(()) if is_at(&file, path)? => Ok(Some(file)),
        Ok(()) => Err(ErrorKind::Interrupted.into()),
        Err(TryLockError::WouldBlock) if is_held(&file)? => Ok(None),
        Err(TryLockError::WouldBlock) => Err(ErrorKind::Interrupted.into()),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Whether somebody holds the lock, and does not just look as we do.
fn is_held(file: &File) -> io::Result<bool> {
    match file.try_lock_shared() {
        Ok(()) => file.unlock().map(|()| false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let (open, named) = (file.metadata()?, std::fs::metadata(path)?);
    Ok((open.dev(), open.ino()) == (named.dev(), named.ino()))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use super::*;
    use crate::wipe::wipe;

    #[test]
    fn there_is_never_a_second_holder_while_others_wipe_and_look() {
        let temporary = tempfile::tempdir().unwrap();
        let data = DataDir::at(&temporary.path().join("data")).unwrap();
        let (holders, done) = (AtomicU32::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    Lock::is_taken(&data).unwrap();
                }
            });
            let turns: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let mut turns = 0;
                        while turns < 50 {
                            let Some(lock) = Lock::take(&data).unwrap() else { continue };
                            turns += 1;
                            assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0, "two hold the lock");
                            assert!(data.run().is_dir() && data.logs().is_dir(), "what a stack needs is there");
                            std::thread::yield_now();
                            holders.fetch_sub(1, Ordering::SeqCst);
                            wipe(&data, lock).unwrap();
                        }
                    })
                })
                .collect();
            let joined: Vec<_> = turns.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
            done.store(true, Ordering::Relaxed);
            assert!(joined.iter().all(Result::is_ok));
        });
        assert!(!data.root().exists());
    }

    #[test]
    fn looking_makes_nothing_and_takes_nothing() {
        let temporary = tempfile::tempdir().unwrap();
        let data = DataDir::at(&temporary.path().join("data")).unwrap();
        assert!(!Lock::is_taken(&data).unwrap());
        assert!(!data.root().exists());
        let lock = Lock::take(&data).unwrap().unwrap();
        assert!(Lock::is_taken(&data).unwrap() && Lock::take(&data).unwrap().is_none());
        drop(lock);
        let looking = File::open(data.lock_file()).unwrap();
        looking.lock_shared().unwrap();
        assert!(!Lock::is_taken(&data).unwrap());
        let looked = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            drop(looking);
        });
        assert!(Lock::take(&data).unwrap().is_some(), "one who looks keeps nobody out");
        looked.join().unwrap();
    }
}
