//! Children that cannot outlive the test process.
//!
//! The kernel sends the parent-death signal when the *thread* that made the child ends, and a test runs
//! on a thread that ends long before the process does. So every child is made by one thread that never ends.

use std::process::{Child, Command};
use std::sync::LazyLock;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::{io, thread};

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

type Job = (Command, SyncSender<io::Result<Child>>);

static SPAWNER: LazyLock<UnboundedSender<Job>> = LazyLock::new(|| {
    let (sender, mut jobs) = unbounded_channel::<Job>();
    thread::Builder::new()
        .name("testkit-spawner".into())
        .spawn(move || {
            while let Some((mut command, answer)) = jobs.blocking_recv() {
                // A caller that went away gets no child: dropping the result leaves it to the death signal.
                drop(answer.send(command.spawn()));
            }
        })
        .expect("a thread for starting children");
    sender
});

/// `program` wrapped so that the kernel kills it with the test process.
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Starts `command` from the thread that never ends.
pub(crate) fn spawn(command: Command) -> io::Result<Child> {
    let (answer, result) = sync_channel(1);
    SPAWNER.send((command, answer)).map_err(|_| io::Error::other("the spawner thread is gone"))?;
    result.recv().map_err(|_| io::Error::other("the spawner thread is gone"))?
}
