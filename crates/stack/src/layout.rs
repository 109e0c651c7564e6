//! Where things lie: the data directory of one stack, and the repository it runs from.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::Error;

/// The directory of one stack, `.symphony` unless another is named. Everything a stack writes is in it,
/// but for PostgreSQL's files when the directory is closed to the user PostgreSQL runs as.
#[derive(Clone, Debug)]
pub struct DataDir {
    root: PathBuf,
}

impl DataDir {
    /// Takes `path` as it is if absolute, else below the current directory. Touches nothing, and fails if something
    /// that is no directory has that name.
    pub fn at(path: &Path) -> Result<Self, Error> {
        let absolute = std::path::absolute(path).map_err(Error::io(format!("resolving {}", path.display())))?;
        if absolute.exists() && !absolute.is_dir() {
            return Err(Error::Other(format!("the data directory {} is not a folder", absolute.display())));
        }
        // A directory that is there is known by its real name, so two names of it are one stack.
        Ok(Self { root: absolute.canonicalize().unwrap_or(absolute) })
    }

    /// Makes the directory and the folders that every stack needs.
    pub fn create(&self) -> Result<(), Error> {
        for folder in [self.root.clone(), self.logs(), self.run()] {
            create_dir(&folder)?;
        }
        Ok(())
    }

    /// The directory itself, absolute.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What `status --json` prints, written atomically at each change.
    pub fn state_file(&self) -> PathBuf {
        self.root.join("state.json")
    }

    /// Held by the running supervisor, so there is never a second one.
    pub fn lock_file(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// The folder of the control socket.
    pub fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    /// One log file a component.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// The log file of the component `name`.
    pub fn log(&self, name: &str) -> PathBuf {
        self.logs().join(format!("{name}.log"))
    }

    /// The broker's data and configuration.
    pub fn kafka(&self) -> PathBuf {
        self.root.join("kafka")
    }

    /// Connect's configuration; its data is in Kafka.
    pub fn connect(&self) -> PathBuf {
        self.root.join("connect")
    }

    /// PostgreSQL's data, unless [`DataDir::postgres_location`] says that it lies elsewhere.
    pub fn postgres(&self) -> PathBuf {
        self.root.join("postgres")
    }

    /// Names the folder outside, when PostgreSQL's files had to be put outside.
    pub fn postgres_location(&self) -> PathBuf {
        self.root.join("postgres-location")
    }

    /// Its presence says that the slot is newer than the offsets that Connect may have stored. It outlives a crash
    /// between the making of the slot and the forgetting of the offsets.
    pub fn forget_offsets(&self) -> PathBuf {
        self.connect().join("forget-offsets")
    }

    /// Its presence says that a restore has begun and not ended.
    pub fn restore_file(&self) -> PathBuf {
        self.root.join("restore.json")
    }

    /// Where backups are put unless another place is named. `down --wipe` leaves them.
    pub fn backups(&self) -> PathBuf {
        self.root.join("backups")
    }
}

/// The files of this repository that a running stack reads: topics, connectors, migrations, sagas.
#[derive(Clone, Debug)]
pub struct Repository {
    root: PathBuf,
}

impl Repository {
    /// Where `SYMPHONY_HOME` says, which the `symphony` script sets, else where this crate was built.
    pub fn find() -> Result<Self, Error> {
        let root = match std::env::var_os("SYMPHONY_HOME") {
            Some(home) => PathBuf::from(home),
            None => {
                let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
                crate_dir.ancestors().nth(2).unwrap_or(crate_dir).to_path_buf()
            }
        };
        if root.join("kafka/topics.yaml").is_file() {
            return Ok(Self { root });
        }
        Err(Error::Other(format!(
            "{} is not the repository (it has no kafka/topics.yaml): set SYMPHONY_HOME to where it is",
            root.display()
        )))
    }

    /// The root of the repository.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The topics to declare.
    pub fn topics(&self) -> PathBuf {
        self.root.join("kafka/topics.yaml")
    }

    /// The migrations, one folder a database.
    pub fn migrations(&self) -> PathBuf {
        self.root.join("migrations")
    }

    /// The outbox connector, with placeholders.
    pub fn outbox_connector(&self) -> PathBuf {
        self.root.join("debezium/orders-outbox.json")
    }

    /// The saga definitions.
    pub fn sagas(&self) -> PathBuf {
        self.root.join("sagas")
    }
}

/// Makes a directory and its parents.
pub(crate) fn create_dir(path: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(path).map_err(Error::io(format!("creating {}", path.display())))
}

/// Replaces a file's content in one step: a reader sees the old or the new, never a part.
pub(crate) fn write_atomically(path: &Path, content: &[u8]) -> Result<(), Error> {
    let temporary = path.with_added_extension("new");
    // Synced before it gets its name: after a power cut there is the old content or the new, never half of it.
    std::fs::File::create(&temporary)
        .and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&temporary, path))
        .map_err(Error::io(format!("writing {}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_no_data_directory() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(DataDir::at(file.path()).unwrap_err().to_string().ends_with("is not a folder"));
    }

    #[test]
    fn a_link_to_a_data_directory_is_the_same_stack() {
        let temporary = tempfile::tempdir().unwrap();
        let real = temporary.path().join("real");
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, temporary.path().join("link")).unwrap();
        let link = DataDir::at(&temporary.path().join("link")).unwrap();
        assert_eq!(link.root(), DataDir::at(&real).unwrap().root());
    }
}
