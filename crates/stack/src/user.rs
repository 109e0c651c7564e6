//! The unprivileged user that PostgreSQL runs as when we are root, since it refuses to run as root.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::Error;

/// Who a child runs as instead of root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Name in the user database.
    pub name: String,
    /// User id, never 0.
    pub uid: u32,
    /// Its primary group's id.
    pub gid: u32,
}

/// Users that exist on practically every Linux, the most powerless first.
const CANDIDATES: [&str; 4] = ["nobody", "daemon", "postgres", "bin"];

impl User {
    /// The user to drop to: `None` when we are not root, so there is nothing to drop.
    pub fn unprivileged() -> Result<Option<Self>, Error> {
        if !nix::unistd::geteuid().is_root() {
            return Ok(None);
        }
        let found = CANDIDATES.iter().find_map(|name| nix::unistd::User::from_name(name).ok().flatten());
        found.map(|user| Some(Self { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw() })).ok_or_else(
            || {
                Error::Other(format!(
                    "PostgreSQL refuses to run as root, and none of the users {CANDIDATES:?} exists to run it as"
                ))
            },
        )
    }

    /// The arguments of `setpriv` that make a program run as this user.
    pub fn setpriv_arguments(&self) -> [String; 3] {
        [format!("--reuid={}", self.uid), format!("--regid={}", self.gid), "--clear-groups".into()]
    }

    /// Whether this user can enter `directory`. Asked of the system, as modes are not the whole story.
    pub fn can_enter(&self, directory: &Path) -> Result<bool, Error> {
        let status = Command::new("setpriv")
            .args(self.setpriv_arguments())
            .args(["--", "test", "-x"])
            .arg(directory)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .map_err(Error::io("running setpriv, a part of util-linux"))?;
        Ok(status.success())
    }

    /// Gives `path` itself, not what is in it, to this user.
    pub fn give(&self, path: &Path) -> Result<(), Error> {
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid)).map_err(Error::io(format!(
            "giving {} to user {}",
            path.display(),
            self.name
        )))
    }
}
