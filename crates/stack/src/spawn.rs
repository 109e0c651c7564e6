//! Children that die with this process, whatever ends it.
//!
//! `setpriv --pdeathsig` asks the kernel to kill the child when its parent dies. The kernel takes the *thread*
//! that forked for the parent, so all children are made by one thread, which lives as long as the process.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::{io, thread};

use tokio::process::Child;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::user::User;
use crate::{Error, log};

struct Job {
    command: Command,
    runtime: Handle,
    answer: oneshot::Sender<io::Result<Child>>,
}

static SPAWNER: LazyLock<Result<mpsc::UnboundedSender<Job>, io::ErrorKind>> = LazyLock::new(|| {
    let (sender, mut jobs) = mpsc::unbounded_channel::<Job>();
    let work = move || {
        while let Some(job) = jobs.blocking_recv() {
            let _runtime = job.runtime.enter();
            // A child whose asker went away is dropped, and killed by that.
            drop(job.answer.send(tokio::process::Command::from(job.command).kill_on_drop(true).spawn()));
        }
    };
    thread::Builder::new().name("spawner".into()).spawn(work).map(|_| sender).map_err(|error| error.kind())
});

/// A program to run as a child.
#[derive(Clone, Debug)]
pub struct Program {
    /// Absolute path, or a name to look up in `PATH`.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Variables added to ours.
    pub environment: Vec<(String, OsString)>,
    /// Who it runs as; `None` for ourselves.
    pub user: Option<User>,
    /// Where its output and errors are appended.
    pub log: PathBuf,
}

impl Program {
    /// A program without arguments that writes to `log`.
    pub fn new(path: impl Into<PathBuf>, log: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), arguments: Vec::new(), environment: Vec::new(), user: None, log: log.into() }
    }

    /// Adds one argument.
    pub fn argument(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Sets one variable.
    pub fn variable(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Starts it: in a process group of its own, so that Ctrl-C in our terminal reaches only us, and killed
    /// when we or the returned handle are gone. Must be called inside a tokio runtime.
    pub async fn spawn(&self) -> Result<Child, Error> {
        let doing = || Error::io(format!("starting {}", self.path.display()));
        let output = log::open(&self.log)?;
        let errors = output.try_clone().map_err(doing())?;
        let mut command = Command::new("setpriv");
        if let Some(user) = &self.user {
            command.args(user.setpriv_arguments());
        }
        command.args(["--pdeathsig", "KILL", "--"]).arg(&self.path).args(&self.arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.current_dir("/").process_group(0).stdin(Stdio::null()).stdout(output).stderr(errors);
        spawn(command).await.map_err(doing())
    }
}

async fn spawn(command: Command) -> io::Result<Child> {
    let spawner = SPAWNER.as_ref().map_err(|kind| io::Error::from(*kind))?;
    let (answer, result) = oneshot::channel();
    let gone = || io::Error::other("the thread that starts children is gone");
    spawner.send(Job { command, runtime: Handle::current(), answer }).map_err(|_| gone())?;
    result.await.map_err(|_| gone())?
}
