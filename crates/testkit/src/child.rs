//! A program that is no service of the platform.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};

use crate::spawn;

/// A running program; it is killed when dropped.
pub struct Child {
    child: Mutex<std::process::Child>,
    log: PathBuf,
}

impl Child {
    /// Starts `program`; what it writes goes to `<name>.log` in `dir`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(dir: &Path, name: &str, program: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let path = dir.join(format!("{name}.log"));
        let log = File::options().create(true).append(true).open(&path).expect("a log file");
        let mut command = spawn::command(program);
        command
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle of the log"))
            .stderr(log);
        let child = spawn::spawn(command).unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        Self { child: Mutex::new(child), log: path }
    }

    /// Kills it as a crash would and waits until it is gone.
    pub fn kill9(&self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        // Both fail only when it has ended already.
        drop(child.kill());
        drop(child.wait());
    }

    /// All that was written under its name.
    pub fn log(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill9();
    }
}
