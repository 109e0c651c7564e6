//! Runs a whole stack: starts it in order of readiness, restarts what dies, answers the other commands, and ends
//! it cleanly. Everything it started dies with it.

mod backoff;
mod boot;
mod change_capture;
pub mod control;
mod fleet;
mod keeper;
mod lock;
mod pulse;
mod requests;
mod service;
pub mod state;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

pub use self::lock::Lock;
pub use self::requests::MOST_INSTANCES;
pub use self::service::{SERVICES, ServiceSpec};

use self::control::{Conversation, Listener, Reply};
use self::fleet::Fleet;
use self::service::Surroundings;
use self::state::{Board, Kind, StackState, State};
use crate::layout::Repository;
use crate::links::Links;
use crate::ports::Ports;
use crate::process::ProcessId;
use crate::{DataDir, Error, log};

/// How often logs are looked at for their size, and memory for `state.json`.
const HOUSEKEEPING: Duration = Duration::from_secs(15);

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The files that the stack reads.
    pub repository: Repository,
    /// The folder of the services' programs.
    pub programs: PathBuf,
    /// Leave the services out.
    pub servers_only: bool,
    /// The servers' ports, if they are free.
    pub ports: Ports,
    /// What stands between servers and clients.
    pub links: Links,
    /// Variables for every service, beside those of this process.
    pub environment: Vec<(String, String)>,
}

impl Options {
    /// Everything on the ports that users know, and nothing between.
    pub fn new(repository: Repository, programs: PathBuf) -> Self {
        let (ports, links, environment) = (Ports::DEFAULT, Links::default(), Vec::new());
        Self { repository, programs, servers_only: false, ports, links, environment }
    }
}

/// Where lines for people go.
#[derive(Clone)]
pub struct Report(Arc<dyn Fn(&str) + Send + Sync>);

impl Report {
    /// Calls `line` with each line.
    pub fn new(line: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(line))
    }

    /// One line.
    pub fn say(&self, line: &str) {
        (self.0)(line);
    }

    /// A step of the start that is done, and the time it took.
    fn step(&self, what: &str, took: Duration) {
        self.say(&format!("{what:<28} {:>6.1} s", took.as_secs_f32()));
    }
}

/// What the supervisor's tasks share.
struct Inner {
    data: DataDir,
    options: Options,
    board: Arc<Board>,
    fleet: Fleet,
    report: Report,
    /// Known as soon as the ports are.
    around: OnceLock<Surroundings>,
    scaling: tokio::sync::Mutex<()>,
}

/// Runs the stack until it is asked to end by `symphony down`, SIGINT, SIGTERM or SIGHUP. `ready` is called once,
/// when everything is ready. A second signal while it ends kills what is left.
///
/// # Errors
/// When the start failed. Everything is ended by then.
pub async fn run(lock: Lock, options: Options, report: Report, ready: impl FnOnce(&State)) -> Result<(), Error> {
    let data = lock.data().clone();
    let own = ProcessId::of(std::process::id()).ok_or_else(|| Error::Other("/proc is needed and not there".into()))?;
    end_leftovers(&data, &report).await?;
    let board = Arc::new(Board::new(&data.state_file(), own));
    board.change(|_| ());
    let listener = Listener::bind(&data)?;
    let fleet = Fleet::new(Arc::clone(&board), report.clone());
    let (around, scaling) = (OnceLock::new(), tokio::sync::Mutex::new(()));
    let inner = Arc::new(Inner { data, options, board, fleet, report, around, scaling });

    let (down_sender, mut down) = mpsc::channel(4);
    let serving = tokio::spawn(requests::serve(Arc::clone(&inner), listener, down_sender));
    let housekeeping = tokio::spawn(keep_house(Arc::clone(&inner)));
    let mut stop = StopSignals::new()?;

    let started = tokio::select! {
        booted = boot::boot(&inner) => Some(booted),
        conversation = stop.or_down(&mut down) => {
            end(&inner, conversation, &mut stop).await;
            None
        }
    };
    let outcome = match started {
        None => Ok(()),
        Some(Ok(())) => {
            inner.board.measure_memory();
            inner.board.change(|state| state.stack = StackState::Ready);
            ready(&inner.board.snapshot());
            follow(&inner, &mut stop, &mut down).await;
            Ok(())
        }
        Some(Err(error)) => {
            let reason = error.chain();
            inner.report.say("the start failed, what runs is ended");
            inner.board.change(|state| state.reason = Some(reason));
            stop_components(&inner, &mut None).await;
            inner.board.change(|state| state.stack = StackState::Failed);
            Err(error)
        }
    };
    housekeeping.abort();
    serving.abort();
    // Waits until the listener is dropped, and its socket with it.
    let _ = serving.await;
    drop(lock);
    outcome
}

async fn follow(inner: &Arc<Inner>, stop: &mut StopSignals, down: &mut mpsc::Receiver<Conversation>) {
    let watched = async {
        if let Some(around) = inner.around.get()
            && let Err(error) = change_capture::watch(around, &inner.board).await
        {
            inner.report.say(&format!("the outbox connector is not watched: {}", error.chain()));
        }
        std::future::pending().await
    };
    let conversation = tokio::select! {
        conversation = stop.or_down(down) => conversation,
        never = watched => never,
    };
    end(inner, conversation, stop).await;
}

/// Ends everything. A further signal cuts it short: then the children die with this process.
async fn end(inner: &Arc<Inner>, mut conversation: Option<Conversation>, stop: &mut StopSignals) {
    inner.board.change(|state| state.stack = StackState::Stopping);
    tokio::select! {
        () = stop_components(inner, &mut conversation) => {}
        () = stop.next() => inner.report.say("what is left is killed"),
    }
    inner.board.change(|state| state.stack = StackState::Stopped);
    let state = inner.board.snapshot().after_the_supervisor();
    if let Some(conversation) = &mut conversation {
        conversation.say(&Reply::Done { state: Box::new(state) }).await;
    }
}

/// Services first, all at once; then Connect, Kafka, and PostgreSQL.
async fn stop_components(inner: &Arc<Inner>, conversation: &mut Option<Conversation>) {
    let mut services = tokio::task::JoinSet::new();
    for key in inner.fleet.of_kind(Kind::Service) {
        let inner = Arc::clone(inner);
        services.spawn(async move {
            // Fails only if it was removed at this moment.
            let _ = inner.fleet.stop(&key).await;
        });
    }
    if !services.is_empty() {
        services.join_all().await;
        tell(inner, conversation, "services stopped").await;
    }
    for key in inner.fleet.of_kind(Kind::Server).iter().rev() {
        let _ = inner.fleet.stop(key).await;
        tell(inner, conversation, &format!("{} stopped", key.name)).await;
    }
}

async fn tell(inner: &Inner, conversation: &mut Option<Conversation>, text: &str) {
    inner.report.say(text);
    if let Some(conversation) = conversation {
        conversation.say(&Reply::Progress { text: text.into() }).await;
    }
}

/// Ends what a killed supervisor left. There should be nothing: its children die with it.
pub async fn end_leftovers(data: &DataDir, report: &Report) -> Result<(), Error> {
    let Some(before) = State::read(data)? else { return Ok(()) };
    for component in &before.components {
        let Some(process) = component.process().filter(|process| process.is_alive()) else { continue };
        report.say(&format!(
            "{} of an earlier run still ran (process {}), it is ended",
            component.label(),
            process.pid
        ));
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            // Fails only if it has just ended.
            let _ = process.signal(signal);
            if process.gone_within(Duration::from_secs(10)).await {
                break;
            }
        }
    }
    Ok(())
}

async fn keep_house(inner: Arc<Inner>) {
    let mut timer = tokio::time::interval(HOUSEKEEPING);
    loop {
        timer.tick().await;
        inner.board.measure_memory();
        for component in inner.board.snapshot().components {
            if let Err(error) = log::rotate(&component.log, log::CAP) {
                inner.report.say(&format!("{} cannot be started again: {error}", component.log.display()));
            }
        }
    }
}

/// The signals that end a stack.
struct StopSignals([tokio::signal::unix::Signal; 3]);

impl StopSignals {
    fn new() -> Result<Self, Error> {
        let listen = |kind| signal(kind).map_err(Error::io("listening for signals"));
        Ok(Self([listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?, listen(SignalKind::hangup())?]))
    }

    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }

    /// Waits for a signal, or for `symphony down` with whom to tell.
    async fn or_down(&mut self, down: &mut mpsc::Receiver<Conversation>) -> Option<Conversation> {
        tokio::select! {
            () = self.next() => None,
            conversation = down.recv() => conversation,
        }
    }
}
