//! A service run as the program that is shipped.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fs, io};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::spawn;
use crate::wait::wait_for;

/// Longer than any start needs on two busy cores.
const READY_WITHIN: Duration = Duration::from_secs(90);
/// The drain deadline of a service is 25 s.
const STOPPED_WITHIN: Duration = Duration::from_secs(35);
/// Lines of its log that a failed test prints for each process.
const LOG_TAIL: usize = 40;

/// A running (or stopped) service process; it is killed when dropped.
pub struct Process {
    name: String,
    program: PathBuf,
    environment: Vec<(String, String)>,
    port_file: PathBuf,
    log: PathBuf,
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    child: Option<Child>,
    port: Option<u16>,
}

impl Process {
    /// `program` under `name`, which is unique in `dir`: its port file and its log are there.
    pub(crate) fn prepare(dir: &Path, name: &str, program: PathBuf, mut environment: Vec<(String, String)>) -> Self {
        let port_file = dir.join(format!("{name}.port"));
        environment.push(("HTTP_PORT".into(), "0".into()));
        environment.push(("HTTP_PORT_FILE".into(), port_file.display().to_string()));
        Self {
            name: name.to_owned(),
            program,
            environment,
            port_file,
            log: dir.join(format!("{name}.log")),
            running: Mutex::default(),
        }
    }

    /// The file that has the address of its HTTP interface while it runs.
    pub fn port_file(&self) -> &Path {
        &self.port_file
    }

    /// Its name, with the number of the instance.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Base URL of its HTTP interface, without a slash at the end.
    ///
    /// # Panics
    /// When it was never ready.
    pub fn url(&self) -> String {
        let port = self.lock().port.unwrap_or_else(|| panic!("{} was never ready", self.name));
        format!("http://127.0.0.1:{port}")
    }

    /// Whether it runs and was ready since it was started.
    pub fn is_ready(&self) -> bool {
        self.pid().is_some() && self.lock().port.is_some()
    }

    /// The process id, or `None` when it has ended.
    pub fn pid(&self) -> Option<u32> {
        let mut running = self.lock();
        let child = running.child.as_mut()?;
        child.try_wait().ok()?.is_none().then(|| child.id())
    }

    /// Starts it (again) and waits until it is ready. Does nothing to a process that is running.
    ///
    /// # Panics
    /// When it ends or is not ready in time; the message ends with its log.
    pub async fn start(&self) {
        self.launch();
        self.ready().await;
    }

    /// Starts it without waiting. Does nothing to a process that is running.
    pub fn launch(&self) {
        if self.pid().is_some() {
            return;
        }
        // A port left by the last run would be taken for this one's.
        match fs::remove_file(&self.port_file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => panic!("{}: {error}", self.port_file.display()),
            _ => {}
        }
        let log = File::options().create(true).append(true).open(&self.log).expect("a log file");
        let mut command = spawn::command(&self.program);
        command
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .envs(self.environment.iter().map(|(key, value)| (key, value)))
            .stdin(std::process::Stdio::null())
            .stdout(log.try_clone().expect("a second handle of the log"))
            .stderr(log);
        let child = spawn::spawn(command).unwrap_or_else(|error| panic!("{}: {error}", self.program.display()));
        let mut running = self.lock();
        running.child = Some(child);
        running.port = None;
    }

    /// Waits until `/readyz` answers 200.
    ///
    /// # Panics
    /// When the process ends or is not ready in time; the message ends with its log.
    pub async fn ready(&self) {
        let client = reqwest::Client::new();
        let ready = wait_for(READY_WITHIN, async || {
            if self.pid().is_none() {
                return Some(false);
            }
            let address: std::net::SocketAddr = fs::read_to_string(&self.port_file).ok()?.trim().parse().ok()?;
            let port = address.port();
            let request = client.get(format!("http://127.0.0.1:{port}/readyz")).timeout(Duration::from_secs(5));
            if !request.send().await.ok()?.status().is_success() {
                return None;
            }
            self.lock().port = Some(port);
            Some(true)
        })
        .await;
        match ready {
            Some(true) => {}
            Some(false) => panic!("{} ended before it was ready\n{}", self.name, self.log_tail()),
            None => panic!("{} is not ready after {READY_WITHIN:?}\n{}", self.name, self.log_tail()),
        }
    }

    /// Asks it to stop (SIGTERM) and waits until it has.
    ///
    /// # Panics
    /// When it is still there after its drain deadline.
    pub async fn stop(&self) -> Option<ExitStatus> {
        self.terminate();
        self.wait_stopped().await
    }

    /// Waits until it has stopped, which was asked of it before.
    pub(crate) async fn wait_stopped(&self) -> Option<ExitStatus> {
        self.wait_exit(STOPPED_WITHIN).await
    }

    /// Asks it to stop without waiting.
    pub fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Kills it as a crash would (SIGKILL) and waits until it is gone.
    pub async fn kill9(&self) {
        // Taken first: whoever starts it again meanwhile starts another child.
        let Some(mut child) = self.lock().child.take() else { return };
        // Fails only when it has ended already.
        drop(child.kill());
        let gone = wait_for(STOPPED_WITHIN, async || child.try_wait().expect("the state of a child"));
        assert!(gone.await.is_some(), "{} survives SIGKILL", self.name);
    }

    /// Stops it where it is (SIGSTOP): its connections stay open and it answers nothing.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets a paused process go on (SIGCONT).
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Stops it in order and starts it again.
    pub async fn restart(&self) {
        self.stop().await;
        self.start().await;
    }

    /// Waits until it has ended by itself. `None` when it was not running.
    ///
    /// # Panics
    /// When it is still there after `timeout`.
    pub async fn wait_exit(&self, timeout: Duration) -> Option<ExitStatus> {
        let ended = wait_for(timeout, async || {
            let mut running = self.lock();
            let Some(child) = running.child.as_mut() else { return Some(None) };
            child.try_wait().expect("the state of a child").map(Some)
        })
        .await;
        ended.unwrap_or_else(|| panic!("{} still runs after {timeout:?}\n{}", self.name, self.log_tail()))
    }

    /// Sets an environment variable for the next start, in place of what it had.
    pub fn set_env(&mut self, key: &str, value: &str) {
        self.environment.retain(|(name, _)| name != key);
        self.environment.push((key.to_owned(), value.to_owned()));
    }

    /// All it has written, of all its runs.
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n");
        format!("--- log of {} ---\n{tail}\n--- end ---", self.name)
    }

    fn signal(&self, signal: Signal) {
        // The child is not reaped between the look and the signal: only this type reaps it, so the id is its own.
        let mut running = self.lock();
        let Some(child) = running.child.as_mut() else { return };
        if child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
            kill(pid, signal).unwrap_or_else(|error| panic!("{signal} to {}: {error}", self.name));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = self.lock().child.as_mut() {
            // Both fail only when it has ended already.
            drop(child.kill());
            drop(child.wait());
        }
        if std::thread::panicking() {
            eprintln!("{}", self.log_tail());
        }
    }
}
