//! Where PostgreSQL's programs and data lie.
//!
//! As root, PostgreSQL runs as another user, to whom the data directory may be closed (below `/root`, for
//! example). Then its files go below [`OUTSIDE`], and the data directory remembers where.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::Error;
use crate::fetch::{Files, run};
use crate::layout::{DataDir, create_dir, write_atomically};
use crate::user::User;

/// For what cannot lie in a data directory or cache that is closed to the user.
const OUTSIDE: &str = "/var/lib/chaos-symphony";

/// The places, decided once for a start.
#[derive(Clone, Debug)]
pub(super) struct PostgresFiles {
    /// Holds `bin`, `lib` and `share`.
    pub(super) home: PathBuf,
    /// The cluster's data directory.
    pub(super) data: PathBuf,
    /// Who PostgreSQL runs as; `None` for ourselves.
    pub(super) user: Option<User>,
}

impl PostgresFiles {
    /// Decides from what the user can enter, and what was decided before. Writes nothing.
    pub(super) fn decide(data: &DataDir, files: &Files) -> Result<Self, Error> {
        let user = User::unprivileged()?;
        let remembered = remembered(data)?;
        let Some(account) = &user else {
            return Ok(Self { home: files.postgres(), data: remembered.unwrap_or_else(|| data.postgres()), user });
        };
        let inside_is_closed = !account.can_enter(data.root())?;
        let cluster = match remembered {
            Some(cluster) => cluster,
            None if inside_is_closed => Path::new(OUTSIDE).join(name_of(data)).join("postgres"),
            None => data.postgres(),
        };
        let home = if account.can_enter(&files.postgres().join("bin"))? {
            files.postgres()
        } else {
            Path::new(OUTSIDE).join(format!("postgres-{}", files.key()))
        };
        Ok(Self { home, data: cluster, user })
    }

    /// Remembers a cluster outside, and brings the programs to where the user can run them.
    pub(super) async fn place(&self, data: &DataDir, files: &Files) -> Result<(), Error> {
        if self.data != data.postgres() {
            write_atomically(&data.postgres_location(), self.data.as_os_str().as_encoded_bytes())?;
        }
        if self.home == files.postgres() || self.home.is_dir() {
            return Ok(());
        }
        open_dir(Path::new(OUTSIDE))?;
        let unfinished = self.home.with_added_extension(format!("{}.unfinished", std::process::id()));
        let mut copy = tokio::process::Command::new("cp");
        copy.arg("--recursive")
            .arg("--no-dereference")
            .arg("--preserve=mode,links")
            .arg(files.postgres())
            .arg(&unfinished);
        run("copying PostgreSQL's programs", copy).await?;
        match std::fs::rename(&unfinished, &self.home) {
            // Another stack was faster.
            Err(_) if self.home.is_dir() => {
                std::fs::remove_dir_all(&unfinished).map_err(Error::io(format!("removing {}", unfinished.display())))
            }
            renamed => renamed.map_err(Error::io(format!("finishing {}", self.home.display()))),
        }
    }

    /// Makes an empty folder for a new cluster that only PostgreSQL's user can use.
    pub(super) fn create_private(&self, folder: &Path) -> Result<(), Error> {
        use std::os::unix::fs::PermissionsExt;
        if let (Some(parent), true) = (folder.parent(), folder.starts_with(OUTSIDE)) {
            open_dir(Path::new(OUTSIDE))?;
            open_dir(parent)?;
        }
        create_dir(folder)?;
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))
            .map_err(Error::io(format!("closing {}", folder.display())))?;
        self.user.as_ref().map_or(Ok(()), |user| user.give(folder))
    }
}

/// Removes PostgreSQL's files that lie outside the data directory, if any do.
pub(crate) fn wipe_outside(data: &DataDir) -> Result<(), Error> {
    let Some(cluster) = remembered(data)? else { return Ok(()) };
    let Some(folder) = cluster.parent().filter(|folder| folder.starts_with(OUTSIDE) && *folder != Path::new(OUTSIDE))
    else {
        return Ok(());
    };
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("removing {}", folder.display()))(error))
        }
        _ => Ok(()),
    }
}

fn remembered(data: &DataDir) -> Result<Option<PathBuf>, Error> {
    let file = data.postgres_location();
    match std::fs::read_to_string(&file) {
        Ok(path) => Ok(Some(PathBuf::from(path.trim_end()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(format!("reading {}", file.display()))(error)),
    }
}

fn name_of(data: &DataDir) -> String {
    let digest = Sha256::digest(data.root().as_os_str().as_encoded_bytes());
    digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A folder that everybody can enter, whatever our umask is.
fn open_dir(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt;
    if path.is_dir() {
        return Ok(());
    }
    create_dir(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
        .map_err(Error::io(format!("opening {}", path.display())))
}
