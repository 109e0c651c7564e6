//! Removing the data of a stack.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::backup::REPLACED;
use crate::supervisor::Lock;
use crate::{DataDir, Error, servers};

/// Removes everything that a stack has written, and nothing else. The data directory itself goes if it is empty
/// then. The lock says that no supervisor runs; its file goes last, and whoever has it open by then opens it again.
pub fn wipe(data: &DataDir, lock: Lock) -> Result<(), Error> {
    servers::wipe_outside(data)?;
    let ours = [
        data.postgres(),
        data.postgres().with_added_extension("unfinished"),
        data.postgres_location(),
        // With the cluster that it speaks of.
        data.restore_file(),
        data.restore_file().with_added_extension("new"),
        data.kafka(),
        data.connect(),
        data.run(),
        data.logs(),
        data.state_file(),
        // Half written when its writer was killed.
        data.state_file().with_added_extension("new"),
        data.lock_file(),
    ];
    for path in ours.into_iter().chain(replaced(data)?) {
        remove(&path)?;
    }
    drop(lock);
    match std::fs::remove_dir(data.root()) {
        Err(error) if !matches!(error.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::NotFound) => {
            Err(Error::io(format!("removing {}", data.root().display()))(error))
        }
        _ => Ok(()),
    }
}

/// The clusters that restores have put aside.
fn replaced(data: &DataDir) -> Result<Vec<PathBuf>, Error> {
    let start = format!("{}.{REPLACED}", data.postgres().display());
    let doing = || Error::io(format!("reading {}", data.root().display()));
    let entries = std::fs::read_dir(data.root()).map_err(doing())?;
    let paths: Vec<PathBuf> =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>().map_err(doing())?;
    Ok(paths.into_iter().filter(|path| path.to_string_lossy().starts_with(&start)).collect())
}

fn remove(path: &Path) -> Result<(), Error> {
    let removed = match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Error::io(format!("removing {}", path.display()))(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_put_into_the_data_directory_stays() {
        let temporary = tempfile::tempdir().unwrap();
        let data = DataDir::at(&temporary.path().join("data")).unwrap();
        let lock = Lock::take(&data).unwrap().unwrap();
        std::fs::create_dir_all(data.kafka().join("data")).unwrap();
        std::fs::create_dir_all(data.root().join("postgres.replaced-20261121T120000Z/base")).unwrap();
        std::fs::write(data.restore_file(), "{}").unwrap();
        std::fs::write(data.root().join("notes.txt"), "mine").unwrap();
        wipe(&data, lock).unwrap();
        let left: Vec<_> = std::fs::read_dir(data.root()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["notes.txt"]);

        std::fs::remove_file(data.root().join("notes.txt")).unwrap();
        wipe(&data, Lock::take(&data).unwrap().unwrap()).unwrap();
        assert!(!data.root().exists());
    }
}
