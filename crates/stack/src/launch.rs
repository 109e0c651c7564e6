//! Starting one program, knowing when it is ready, and ending it.

use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use nix::sys::signal::Signal;
use tokio::process::Child;

use crate::spawn::Program;
use crate::supervisor::state::ConsumerWait;
use crate::{Error, log, process};

/// How one instance of a component is prepared, run, found ready and stopped.
#[async_trait]
pub trait Launch: Send + Sync + 'static {
    /// Name for people: the component, with its instance if there may be several.
    fn name(&self) -> String;

    /// Puts in order what the program needs, before every start.
    async fn prepare(&self) -> Result<(), Error>;

    /// The program to run. Called after [`Launch::prepare`].
    fn program(&self) -> Result<Program, Error>;

    /// What readiness means, for messages: "an answer of GET http://…/readyz".
    fn waits_for(&self) -> String;

    /// One look whether it is ready; if not, says why.
    async fn probe(&self) -> Result<(), String>;

    /// Which of its consumers waited at the last look, ready or not.
    fn waiting(&self) -> Vec<ConsumerWait> {
        Vec::new()
    }

    /// The time from start to readiness that is surely too long.
    fn patience(&self) -> Duration;

    /// The signal that asks it to end, and the time it gets before it is killed.
    fn stop_signal(&self) -> (Signal, Duration);

    /// Where it is reached: a URL with host and port.
    fn url(&self) -> String;

    /// Its log file.
    fn log(&self) -> &Path;
}

const NO_ANSWER: &str = "it does not answer in time";

/// One look whether it is ready, of which the answer may take so long: a program may accept and never answer.
pub async fn look(launch: &dyn Launch, limit: Duration) -> Result<(), String> {
    tokio::time::timeout(limit, launch.probe()).await.unwrap_or_else(|_| Err(NO_ANSWER.into()))
}

/// Whether a request is answered with success; otherwise says what was answered, with the detail of a problem.
pub(crate) async fn ask(request: reqwest::RequestBuilder) -> Result<(), String> {
    ask_and_read(request).await.0
}

/// [`ask`], and the answer as JSON; null when there is none.
pub(crate) async fn ask_and_read(request: reqwest::RequestBuilder) -> (Result<(), String>, serde_json::Value) {
    let answer = match request.send().await {
        Ok(answer) => answer,
        Err(error) if error.is_timeout() => return (Err(NO_ANSWER.into()), serde_json::Value::Null),
        Err(error) => return (Err(innermost(&error)), serde_json::Value::Null),
    };
    let status = answer.status();
    let body: serde_json::Value = answer.json().await.unwrap_or_default();
    if status.is_success() {
        return (Ok(()), body);
    }
    let detail = body["detail"].as_str().map_or_else(String::new, |detail| format!(": {detail}"));
    (Err(format!("it answers {status}{detail}")), body)
}

/// The message of the cause at the bottom, which names what the system said.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source()).last().unwrap_or(error).to_string()
}

/// A child between its start and its readiness.
pub struct Starting {
    /// The process.
    pub child: Child,
    log_before: u64,
    since: Instant,
}

/// Prepares and starts the program; returns before it is ready.
pub async fn begin(launch: &dyn Launch) -> Result<Starting, Error> {
    launch.prepare().await?;
    let program = launch.program()?;
    let log_before = log::length(&program.log);
    Ok(Starting { child: program.spawn().await?, log_before, since: Instant::now() })
}

impl Starting {
    /// Waits until the program is ready.
    ///
    /// # Errors
    /// When it ends before, or is not ready in its time. The error names what was waited for and shows the end
    /// of the log. The child is left as it is.
    pub async fn until_ready(&mut self, launch: &dyn Launch) -> Result<(), Error> {
        let patience = launch.patience();
        loop {
            if let Some(status) = self.child.try_wait().map_err(Error::io(format!("watching {}", launch.name())))? {
                return Err(self.ended(launch, status));
            }
            let Err(lacking) = look(launch, Duration::from_secs(5)).await else { return Ok(()) };
            if self.since.elapsed() > patience {
                return Err(Error::NotReady {
                    name: launch.name(),
                    after: patience,
                    waited_for: format!("{} ({lacking})", launch.waits_for()),
                    log: log::tail(launch.log(), self.log_before),
                });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn ended(&self, launch: &dyn Launch, status: ExitStatus) -> Error {
        Error::Ended {
            name: launch.name(),
            status: describe(status),
            waited_for: launch.waits_for(),
            log: log::tail(launch.log(), self.log_before),
        }
    }
}

/// Starts the program and waits until it is ready; if it does not get there, it is ended.
pub async fn start(launch: &dyn Launch) -> Result<Child, Error> {
    let mut starting = begin(launch).await?;
    match starting.until_ready(launch).await {
        Ok(()) => Ok(starting.child),
        Err(error) => {
            stop(launch, &mut starting.child).await;
            Err(error)
        }
    }
}

/// Asks the program to end, and kills it when its time is over. Returns how it ended, if that could be known.
pub async fn stop(launch: &dyn Launch, child: &mut Child) -> Option<ExitStatus> {
    let (signal, time) = launch.stop_signal();
    if let Some(pid) = child.id() {
        // Fails only if it has just ended.
        let _ = process::send(pid, signal);
        // A stopped (SIGSTOP) process would take note of the signal only when it goes on.
        let _ = process::send(pid, Signal::SIGCONT);
    }
    if let Ok(ended) = tokio::time::timeout(time, child.wait()).await {
        return ended.ok();
    }
    // Fails only if it has just ended.
    let _ = child.start_kill();
    child.wait().await.ok()
}

/// "exit code 1" or "signal SIGKILL".
pub fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(number)) => match Signal::try_from(number) {
            Ok(signal) => format!("signal {signal}"),
            Err(_) => format!("signal {number}"),
        },
        (None, None) => status.to_string(),
    }
}
