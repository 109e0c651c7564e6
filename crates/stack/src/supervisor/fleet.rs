//! All components of a stack and their keepers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::Utc;
use nix::sys::signal::Signal;
use tokio::sync::{mpsc, oneshot};

use super::Report;
use super::backoff::Backoff;
use super::keeper::{Answer, Keeper, Order};
use super::state::{Board, ComponentState, Kind, Phase};
use crate::launch::Launch;

/// Tells one component from the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) name: String,
    pub(super) instance: u32,
}

struct Member {
    key: Key,
    kind: Kind,
    orders: mpsc::Sender<Order>,
}

pub(super) struct Fleet {
    members: Mutex<Vec<Member>>,
    board: Arc<Board>,
    report: Report,
}

impl Fleet {
    pub(super) fn new(board: Arc<Board>, report: Report) -> Self {
        Self { members: Mutex::new(Vec::new()), board, report }
    }

    fn members(&self) -> MutexGuard<'_, Vec<Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a component in, not started.
    pub(super) fn add(&self, name: &str, instance: u32, kind: Kind, launch: Arc<dyn Launch>) -> Key {
        let key = Key { name: name.to_owned(), instance };
        let component = ComponentState {
            name: key.name.clone(),
            kind,
            instance,
            pid: None,
            started_ticks: None,
            state: Phase::Starting,
            reason: None,
            waiting: Vec::new(),
            url: launch.url(),
            memory_bytes: None,
            restarts: 0,
            since: Utc::now(),
            log: launch.log().to_path_buf(),
        };
        self.board.change(|state| {
            let after = state.components.iter().rposition(|other| other.name == key.name);
            state.components.insert(after.map_or(state.components.len(), |index| index + 1), component);
        });
        let (orders, receiver) = mpsc::channel(16);
        let keeper = Keeper {
            launch,
            name: key.name.clone(),
            instance,
            board: Arc::clone(&self.board),
            report: self.report.clone(),
            orders: receiver,
            backoff: Backoff::default(),
            waiting: Vec::new(),
        };
        tokio::spawn(keeper.run());
        self.members().push(Member { key: key.clone(), kind, orders });
        key
    }

    /// Ends an instance and forgets it.
    pub(super) async fn remove(&self, key: &Key) -> Result<(), String> {
        let stopped = self.stop(key).await;
        self.members().retain(|member| member.key != *key);
        self.board.change(|state| {
            state.components.retain(|component| (&component.name, component.instance) != (&key.name, key.instance));
        });
        stopped
    }

    pub(super) async fn start(&self, key: &Key) -> Result<(), String> {
        self.order(key, Order::Start).await
    }

    pub(super) async fn stop(&self, key: &Key) -> Result<(), String> {
        self.order(key, Order::Stop).await
    }

    pub(super) async fn restart(&self, key: &Key) -> Result<(), String> {
        self.order(key, Order::Restart).await
    }

    pub(super) async fn kill(&self, key: &Key, signal: Signal) -> Result<(), String> {
        self.order(key, |answer| Order::Kill(signal, answer)).await
    }

    async fn order(&self, key: &Key, order: impl FnOnce(Answer) -> Order) -> Result<(), String> {
        let gone = || format!("{} is gone", key.name);
        let orders = self.members().iter().find(|member| member.key == *key).map(|member| member.orders.clone());
        let (answer, outcome) = oneshot::channel();
        orders.ok_or_else(gone)?.send(order(answer)).await.map_err(|_| gone())?;
        outcome.await.map_err(|_| gone())?
    }

    /// What NAME or NAME/INSTANCE means here.
    pub(super) fn resolve(&self, wanted: &str) -> Result<Vec<Key>, String> {
        let (name, instance) = match wanted.split_once('/') {
            Some((name, number)) => {
                let number = number
                    .parse::<u32>()
                    .map_err(|_| format!("{wanted}: after the slash comes an instance's number"))?;
                (name, Some(number))
            }
            None => (wanted, None),
        };
        let members = self.members();
        let mut found: Vec<Key> =
            members.iter().map(|member| member.key.clone()).filter(|key| key.name == name).collect();
        if found.is_empty() {
            let mut names: Vec<&str> = members.iter().map(|member| member.key.name.as_str()).collect();
            names.dedup();
            return Err(format!("there is no component {name}; there are {}", names.join(", ")));
        }
        let there: Vec<String> = found.iter().map(|key| format!("{name}/{}", key.instance)).collect();
        found.retain(|key| instance.is_none_or(|instance| key.instance == instance));
        if found.is_empty() {
            return Err(format!("there is no {wanted}; there are {}", there.join(", ")));
        }
        Ok(found)
    }

    /// The members of a kind, in the order of their taking in.
    pub(super) fn of_kind(&self, kind: Kind) -> Vec<Key> {
        self.members().iter().filter(|member| member.kind == kind).map(|member| member.key.clone()).collect()
    }
}
