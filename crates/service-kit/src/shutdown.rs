//! How the process is told to stop, and that it does.

use std::process;
use std::thread;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What is added to a signal's number in an exit code.
const SIGNALLED: i32 = 128;

/// Cancels `shutdown` at the first SIGTERM or SIGINT; the second ends the process at once.
///
/// # Errors
/// When the handlers cannot be installed.
#[expect(clippy::disallowed_methods, reason = "the second signal asks for just that")]
pub(crate) fn listen(shutdown: CancellationToken) -> std::io::Result<()> {
    let mut signals = Signals { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? };
    tokio::spawn(async move {
        let first = signals.next().await;
        tracing::info!(signal = first, "stopping; a second signal exits at once");
        shutdown.cancel();
        let second = signals.next().await;
        tracing::error!(signal = second, "second signal: exiting at once");
        process::exit(SIGNALLED + second);
    });
    Ok(())
}

struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.term.recv() => SignalKind::terminate().as_raw_value(),
            _ = self.int.recv() => SignalKind::interrupt().as_raw_value(),
        }
    }
}

/// Ends the process with exit code 1 after `deadline`, from a thread of its own: it works also when the
/// runtime is blocked, or when a client library never returns from its destructor.
#[expect(clippy::disallowed_methods, reason = "the destructors had their time, and one of them may be what hangs")]
pub(crate) fn hard_stop_after(deadline: Duration) -> std::io::Result<()> {
    thread::Builder::new().name("hard-stop".to_owned()).spawn(move || {
        thread::sleep(deadline);
        process::exit(1);
    })?;
    Ok(())
}
