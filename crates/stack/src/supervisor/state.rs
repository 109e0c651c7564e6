//! The state of a stack: what `status --json` prints and `state.json` holds.

use std::path::Path;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::layout::write_atomically;
use crate::process::{Memory, ProcessId};
use crate::{DataDir, Error};

/// A stack as a whole.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// Where the stack as a whole is.
    pub stack: StackState,
    /// Why it failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The supervisor's process.
    pub supervisor: ProcessId,
    /// When this `up` began.
    pub started_at: DateTime<Utc>,
    /// Servers first, then services; instances in order.
    pub components: Vec<ComponentState>,
    /// What is wrong with the stack and is no component's failure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alarms: Vec<Alarm>,
}

/// Something that is wrong until it is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// What it is, in a stable word.
    pub name: String,
    /// What it means and what heals it, for people.
    pub detail: String,
    /// Since when.
    pub since: DateTime<Utc>,
}

/// Where the stack as a whole is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StackState {
    /// Not everything is ready yet.
    Starting,
    /// Everything was ready once; a component that died since is restarted.
    Ready,
    /// Going down.
    Stopping,
    /// Down, as asked.
    Stopped,
    /// The start failed, and everything was ended again.
    Failed,
}

/// One process of a stack.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ComponentState {
    /// `postgres`, `kafka`, `connect`, or the service's name.
    pub name: String,
    /// Server or service.
    pub kind: Kind,
    /// From 1.
    pub instance: u32,
    /// Process number; `None` while it does not run.
    pub pid: Option<u32>,
    /// Tells this process from a later one with the same number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_ticks: Option<u64>,
    /// Where it is.
    pub state: Phase,
    /// Why it is failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Which of its consumers wait for something, while they are ready too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<ConsumerWait>,
    /// Where it is reached, with host and port.
    pub url: String,
    /// Proportional set size of the process and its children in bytes, when it was last looked at.
    pub memory_bytes: Option<u64>,
    /// How often it was started again after it had died.
    pub restarts: u32,
    /// Since when it is in its state.
    pub since: DateTime<Utc>,
    /// Its log file.
    pub log: PathBuf,
}

/// A consumer whose batch waits for something that is away. It goes on by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerWait {
    /// The consumer group.
    pub consumer: String,
    /// When the first attempt failed, also when the process was restarted since.
    pub since: DateTime<Utc>,
    /// The error.
    pub cause: String,
    /// How many messages in its partitions are not processed, when it was last measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<u64>,
}

/// Whether a component is one of the three servers or a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// PostgreSQL, Kafka, Kafka Connect.
    Server,
    /// One of ours; may have several instances.
    Service,
}

/// Where a component is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Started, or about to be; not ready yet.
    Starting,
    /// Ready.
    Ready,
    /// Died, or did not get ready: it is started again after a while. Or runs (then it has a process) and is not
    /// ready any more: it is left alone, and ready when it answers again.
    Failed,
    /// Stopped by the user; stays so until it is started.
    Stopped,
}

impl Phase {
    /// The word in `state.json`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
        }
    }
}

impl ComponentState {
    /// The process, if it runs.
    pub fn process(&self) -> Option<ProcessId> {
        Some(ProcessId { pid: self.pid?, started_ticks: self.started_ticks? })
    }

    /// Its name, with the instance where that is not the first.
    pub fn label(&self) -> String {
        label(&self.name, self.instance)
    }
}

/// `name`, or `name/2` for an instance that is not the first.
pub fn label(name: &str, instance: u32) -> String {
    if instance == 1 { name.to_owned() } else { format!("{name}/{instance}") }
}

impl State {
    /// What the last supervisor wrote. `None` if there was none.
    pub fn read(data: &DataDir) -> Result<Option<Self>, Error> {
        let file = data.state_file();
        match std::fs::read(&file) {
            // It only says what ran; data and servers do not need it, so nothing is refused for its sake.
            Ok(bytes) => Ok(serde_json::from_slice(&bytes)
                .inspect_err(|error| eprintln!("warning: {} is unreadable and taken as none: {error}", file.display()))
                .ok()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(format!("reading {}", file.display()))(error)),
        }
    }

    /// What is true when the supervisor that wrote this is gone: whatever still seemed to run does not.
    pub fn after_the_supervisor(mut self) -> Self {
        if self.stack != StackState::Failed {
            self.stack = StackState::Stopped;
        }
        for component in &mut self.components {
            (component.state, component.pid, component.started_ticks) = (Phase::Stopped, None, None);
            component.memory_bytes = None;
            component.waiting.clear();
        }
        self.alarms.clear();
        self
    }
}

/// The state of the running stack, written to its file at each change.
pub(super) struct Board {
    file: PathBuf,
    state: Mutex<State>,
}

impl Board {
    pub(super) fn new(file: &Path, supervisor: ProcessId) -> Self {
        let state = State {
            stack: StackState::Starting,
            reason: None,
            supervisor,
            started_at: Utc::now(),
            components: Vec::new(),
            alarms: Vec::new(),
        };
        Self { file: file.to_path_buf(), state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of the state as it is.
    pub(super) fn snapshot(&self) -> State {
        self.lock().clone()
    }

    /// Changes the state and writes it. A file that cannot be written (disk full) leaves the stack running: the
    /// next change tries again.
    pub(super) fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        if let Ok(mut text) = serde_json::to_vec_pretty(&*state) {
            text.push(b'\n');
            if let Err(error) = write_atomically(&self.file, &text) {
                eprintln!("{}", error.chain());
            }
        }
    }

    /// Changes one component.
    pub(super) fn change_component(&self, name: &str, instance: u32, change: impl FnOnce(&mut ComponentState)) {
        self.change(|state| {
            let found = |component: &&mut ComponentState| component.name == name && component.instance == instance;
            if let Some(component) = state.components.iter_mut().find(found) {
                change(component);
            }
        });
    }

    /// Looks at the memory of everything that runs.
    pub(super) fn measure_memory(&self) {
        let memory = Memory::look();
        self.change(|state| {
            for component in &mut state.components {
                component.memory_bytes = component.pid.and_then(|pid| memory.of_tree(pid));
            }
        });
    }
}
