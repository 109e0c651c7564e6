//! Keeps one instance of a component running, or stopped if the user wants that.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use nix::sys::signal::Signal;
use tokio::process::Child;
use tokio::sync::{mpsc, oneshot};

use super::Report;
use super::backoff::Backoff;
use super::pulse::{Change, Pulse};
use super::state::{Board, ComponentState, Phase};
use crate::Error;
use crate::launch::{self, Launch, Starting};
use crate::process::{self, ProcessId};

/// Whoever waits for a start hears of failure after so many tries. The tries go on.
const TRIES_BEFORE_BAD_NEWS: usize = 3;

/// Resolved when an order was carried out, or with the reason why it was not.
pub(super) type Answer = oneshot::Sender<Result<(), String>>;

/// What a keeper is told to do.
pub(super) enum Order {
    /// Run; answered when ready.
    Start(Answer),
    /// Don't run; answered when ended.
    Stop(Answer),
    /// End and run; answered when ready.
    Restart(Answer),
    /// Send a signal; answered when sent.
    Kill(Signal, Answer),
}

pub(super) struct Keeper {
    pub(super) launch: Arc<dyn Launch>,
    pub(super) name: String,
    pub(super) instance: u32,
    pub(super) board: Arc<Board>,
    pub(super) report: Report,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) backoff: Backoff,
    /// Those who wait until it is ready.
    pub(super) waiting: Vec<Answer>,
}

/// What the keeper does next.
enum Next {
    Start,
    Watch(Child),
    /// Start again after this time.
    Wait(Duration),
    /// Stopped: wait for an order.
    Rest,
    /// Nobody gives orders any more.
    End,
}

impl Keeper {
    /// Runs until the sender of the orders is dropped; then the component is ended.
    pub(super) async fn run(mut self) {
        let mut next = Next::Rest;
        loop {
            next = match next {
                Next::Start => self.start().await,
                Next::Watch(child) => self.watch(child).await,
                Next::Wait(delay) => self.wait(delay).await,
                Next::Rest => self.rest().await,
                Next::End => return,
            }
        }
    }

    async fn start(&mut self) -> Next {
        self.note(Phase::Starting, None, None);
        let mut starting = match launch::begin(self.launch.as_ref()).await {
            Ok(starting) => starting,
            Err(error) => return self.failed(&error, false),
        };
        self.note(Phase::Starting, starting.child.id(), None);
        loop {
            let order = tokio::select! {
                biased;
                order = self.orders.recv() => order,
                outcome = starting.until_ready(self.launch.as_ref()) => {
                    return self.started(starting, outcome).await;
                }
            };
            if let Some(next) = self.obey(order, Some(&mut starting.child)).await {
                return next;
            }
        }
    }

    async fn started(&mut self, mut starting: Starting, outcome: Result<(), Error>) -> Next {
        match outcome {
            Ok(()) => {
                self.note(Phase::Ready, starting.child.id(), None);
                self.tell_waiting(&Ok(()));
                Next::Watch(starting.child)
            }
            Err(error) => {
                launch::stop(self.launch.as_ref(), &mut starting.child).await;
                // Another full wait would not help whoever waits.
                let hopeless = matches!(error, Error::NotReady { .. });
                self.failed(&error, hopeless)
            }
        }
    }

    fn failed(&mut self, error: &Error, hopeless: bool) -> Next {
        let text = error.chain();
        let delay = self.backoff.after(Duration::ZERO);
        if self.waiting.is_empty() {
            let first_line = text.lines().next().unwrap_or_default();
            self.report.say(&format!("{first_line}; next try in {} s", delay.as_secs_f32()));
        } else if hopeless || self.backoff.deaths() >= TRIES_BEFORE_BAD_NEWS {
            self.tell_waiting(&Err(text.clone()));
        }
        self.note(Phase::Failed, None, Some(text));
        Next::Wait(delay)
    }

    async fn watch(&mut self, mut child: Child) -> Next {
        let since = Instant::now();
        let (launch, mut pulse) = (Arc::clone(&self.launch), Pulse::new());
        loop {
            let order = tokio::select! {
                biased;
                order = self.orders.recv() => order,
                change = pulse.change(launch.as_ref()) => {
                    self.note_change(change, child.id());
                    continue;
                }
                ended = child.wait() => {
                    let delay = self.backoff.after(since.elapsed());
                    let status = ended.map_or_else(|error| error.to_string(), launch::describe);
                    let reason = format!("ended ({status})");
                    let name = self.launch.name();
                    self.report.say(&format!("{name} {reason}, it is started again in {} s", delay.as_secs_f32()));
                    self.note(Phase::Failed, None, Some(reason));
                    return Next::Wait(delay);
                }
            };
            if let Some(next) = self.obey(order, Some(&mut child)).await {
                return next;
            }
        }
    }

    /// A component that runs and is not ready is left alone: one that waits for another would only wait longer.
    fn note_change(&self, change: Change, pid: Option<u32>) {
        let name = self.launch.name();
        match change {
            Change::Lost { lacking, again } => {
                let reason = if pid.is_some_and(process::is_suspended) {
                    "it is suspended by a signal".to_owned()
                } else {
                    lacking
                };
                if !again {
                    self.report.say(&format!("{name} is not ready any more: {reason}"));
                }
                self.note(Phase::Failed, pid, Some(format!("not ready: {reason}")));
            }
            Change::Waits(waiting) => {
                self.board.change_component(&self.name, self.instance, |component| component.waiting = waiting);
            }
            Change::Back => {
                self.report.say(&format!("{name} is ready again"));
                self.note(Phase::Ready, pid, None);
            }
        }
    }

    async fn wait(&mut self, delay: Duration) -> Next {
        let until = tokio::time::Instant::now() + delay;
        loop {
            let order = tokio::select! {
                biased;
                order = self.orders.recv() => order,
                () = tokio::time::sleep_until(until) => {
                    self.board.change_component(&self.name, self.instance, |component| component.restarts += 1);
                    return Next::Start;
                }
            };
            if let Some(next) = self.obey(order, None).await {
                return next;
            }
        }
    }

    async fn rest(&mut self) -> Next {
        loop {
            let next = match self.orders.recv().await {
                Some(Order::Start(answer) | Order::Restart(answer)) => {
                    self.waiting.push(answer);
                    self.backoff = Backoff::default();
                    Some(Next::Start)
                }
                order => self.obey(order, None).await,
            };
            if let Some(next) = next {
                return next;
            }
        }
    }

    /// Carries out an order; `None` when things go on as they are.
    async fn obey(&mut self, order: Option<Order>, child: Option<&mut Child>) -> Option<Next> {
        match order {
            None => {
                self.end(child).await;
                Some(Next::End)
            }
            Some(Order::Stop(answer)) => {
                self.end(child).await;
                self.tell_waiting(&Err(format!("{} was stopped", self.launch.name())));
                // Whoever asked may be gone; the order holds all the same.
                let _ = answer.send(Ok(()));
                Some(Next::Rest)
            }
            Some(Order::Restart(answer)) => {
                self.end(child).await;
                self.waiting.push(answer);
                self.backoff = Backoff::default();
                Some(Next::Start)
            }
            Some(Order::Start(answer)) => {
                let components = self.board.snapshot().components;
                let own =
                    |component: &&ComponentState| (&component.name, component.instance) == (&self.name, self.instance);
                match components.iter().find(own) {
                    Some(own) if own.state == Phase::Ready => {
                        let _ = answer.send(Ok(()));
                    }
                    Some(own) if own.state == Phase::Failed && own.pid.is_some() => {
                        let reason = own.reason.as_deref().unwrap_or_default();
                        let _ = answer.send(Err(format!("{} runs already, but is {reason}", self.launch.name())));
                    }
                    _ => self.waiting.push(answer),
                }
                None
            }
            Some(Order::Kill(signal, answer)) => {
                let sent = match child.and_then(|child| child.id()) {
                    Some(pid) => process::send(pid, signal).map_err(|error| error.to_string()),
                    None => Err(format!("{} does not run", self.launch.name())),
                };
                let _ = answer.send(sent);
                None
            }
        }
    }

    async fn end(&mut self, child: Option<&mut Child>) {
        if let Some(child) = child {
            launch::stop(self.launch.as_ref(), child).await;
        }
        self.note(Phase::Stopped, None, None);
    }

    fn tell_waiting(&mut self, outcome: &Result<(), String>) {
        for answer in self.waiting.drain(..) {
            // Who does not wait any more needs no answer.
            let _ = answer.send(outcome.clone());
        }
    }

    fn note(&self, phase: Phase, pid: Option<u32>, reason: Option<String>) {
        let url = self.launch.url();
        self.board.change_component(&self.name, self.instance, |component| {
            if component.state != phase {
                component.since = Utc::now();
            }
            component.state = phase;
            component.pid = pid;
            component.started_ticks = pid.and_then(ProcessId::of).map(|process| process.started_ticks);
            component.reason = reason;
            component.url = url;
            if pid.is_none() {
                component.memory_bytes = None;
                component.waiting.clear();
            }
        });
    }
}
