//! What watchers of orders are told: one query reads the status of every order that somebody watches, however many
//! watchers there are. It reads the database, so it sees what any replica's consumer applied.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use orders::OrderStatus;
use service_kit::CancellationToken;
use sqlx::{PgPool, Row};
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use crate::{metrics, model};

/// The status of these orders.
pub const STATUS_OF_ORDERS: &str =
    "SELECT id, status, reason, saga_version, updated_at FROM orders WHERE id = ANY($1::uuid[])";

/// An order's status at some moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub status: OrderStatus,
    pub reason: Option<String>,
    /// Version of the saga that said so; 0 for an order that nothing was heard of.
    pub saga_version: i32,
    pub updated_at: DateTime<Utc>,
}

/// Reads the status of the orders that are there.
///
/// # Errors
/// Those of the query.
pub async fn read(pool: &PgPool, ids: &[Uuid]) -> Result<HashMap<Uuid, Snapshot>, sqlx::Error> {
    let rows = sqlx::query(STATUS_OF_ORDERS).bind(ids).fetch_all(pool).await?;
    rows.iter()
        .map(|row| {
            let snapshot = Snapshot {
                status: model::status(row.try_get(1)?)?,
                reason: row.try_get(2)?,
                saga_version: row.try_get(3)?,
                updated_at: row.try_get(4)?,
            };
            Ok((row.try_get(0)?, snapshot))
        })
        .collect()
}

/// The orders watched on this replica. Cheap to clone.
#[derive(Clone)]
pub struct StatusFeed {
    shared: Arc<Shared>,
}

struct Shared {
    watched: Mutex<Watched>,
    max_subscribers: usize,
    wake: Notify,
}

#[derive(Default)]
struct Watched {
    orders: HashMap<Uuid, Channel>,
    subscribers: usize,
}

struct Channel {
    sender: watch::Sender<Snapshot>,
    subscribers: usize,
}

impl StatusFeed {
    /// A feed without watchers, for at most `max_subscribers`.
    pub fn new(max_subscribers: usize) -> Self {
        let shared = Shared { watched: Mutex::default(), max_subscribers, wake: Notify::new() };
        StatusFeed { shared: Arc::new(shared) }
    }

    /// Watches an order from `current` on; `None` when there are too many watchers.
    pub fn subscribe(&self, id: Uuid, current: Snapshot) -> Option<Subscription> {
        let mut watched = self.shared.lock();
        if watched.subscribers >= self.shared.max_subscribers {
            return None;
        }
        watched.subscribers += 1;
        let channel = watched
            .orders
            .entry(id)
            .or_insert_with(|| Channel { sender: watch::Sender::new(current.clone()), subscribers: 0 });
        channel.subscribers += 1;
        let mut updates = channel.sender.subscribe();
        updates.mark_changed();
        metrics::SUBSCRIBERS.inc();
        self.shared.wake.notify_one();
        Some(Subscription { id, updates, seen: None, shared: self.shared.clone() })
    }

    /// Reads at once instead of at the next tick: something may have changed.
    pub fn nudge(&self) {
        self.shared.wake.notify_one();
    }

    /// Reads what is watched, at every tick and nudge, until `stop`. Idle without watchers.
    pub async fn poll(self, pool: PgPool, interval: Duration, stop: CancellationToken) {
        let mut failing = false;
        loop {
            let ids = self.shared.ids();
            let wait = async {
                if ids.is_empty() {
                    self.shared.wake.notified().await;
                } else {
                    // A nudge or the next tick, whichever comes first.
                    let _ = tokio::time::timeout(interval, self.shared.wake.notified()).await;
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = wait => {}
            }
            let ids = self.shared.ids();
            if ids.is_empty() {
                continue;
            }
            match read(&pool, &ids).await {
                Ok(snapshots) => {
                    failing = false;
                    self.shared.publish(snapshots);
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(error = &error as &dyn std::error::Error, "watched orders cannot be read");
                    }
                    tokio::time::sleep(interval).await;
                }
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ids(&self) -> Vec<Uuid> {
        self.lock().orders.keys().copied().collect()
    }

    fn publish(&self, snapshots: HashMap<Uuid, Snapshot>) {
        let watched = self.lock();
        for (id, snapshot) in snapshots {
            if let Some(channel) = watched.orders.get(&id) {
                channel.sender.send_if_modified(|last| {
                    let newer = snapshot.saga_version > last.saga_version;
                    if newer {
                        *last = snapshot;
                    }
                    newer
                });
            }
        }
    }
}

/// One watcher of one order. Dropping it ends the watch.
pub struct Subscription {
    id: Uuid,
    updates: watch::Receiver<Snapshot>,
    seen: Option<Snapshot>,
    shared: Arc<Shared>,
}

impl Subscription {
    /// The current status at first, then every later one; `None` after a terminal one.
    pub async fn next(&mut self) -> Option<Snapshot> {
        if self.seen.as_ref().is_some_and(|seen| seen.status.is_terminal()) {
            return None;
        }
        self.updates.changed().await.ok()?;
        let snapshot = self.updates.borrow_and_update().clone();
        self.seen = Some(snapshot.clone());
        Some(snapshot)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut watched = self.shared.lock();
        watched.subscribers -= 1;
        metrics::SUBSCRIBERS.dec();
        if let Some(channel) = watched.orders.get_mut(&self.id) {
            channel.subscribers -= 1;
            if channel.subscribers == 0 {
                watched.orders.remove(&self.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(status: OrderStatus, saga_version: i32) -> Snapshot {
        Snapshot { status, reason: None, saga_version, updated_at: DateTime::UNIX_EPOCH }
    }

    #[tokio::test]
    async fn a_watcher_gets_the_current_status_then_each_change_until_the_end() {
        let feed = StatusFeed::new(2);
        let id = Uuid::now_v7();
        let mut watcher = feed.subscribe(id, snapshot(OrderStatus::Pending, 0)).expect("room");
        assert_eq!(watcher.next().await.map(|s| s.status), Some(OrderStatus::Pending));
        feed.shared.publish(HashMap::from([(id, snapshot(OrderStatus::Parked, 5))]));
        assert_eq!(watcher.next().await.map(|s| s.status), Some(OrderStatus::Parked));
        feed.shared.publish(HashMap::from([(id, snapshot(OrderStatus::Pending, 4))]));
        feed.shared.publish(HashMap::from([(id, snapshot(OrderStatus::Cancelled, 9))]));
        assert_eq!(watcher.next().await.map(|s| s.status), Some(OrderStatus::Cancelled));
        assert_eq!(watcher.next().await, None);
    }

    #[tokio::test]
    async fn watchers_are_bounded_and_leave_nothing_behind() {
        let feed = StatusFeed::new(2);
        let id = Uuid::now_v7();
        let pending = || snapshot(OrderStatus::Pending, 0);
        let one = feed.subscribe(id, pending()).expect("room");
        let two = feed.subscribe(id, pending()).expect("room");
        assert!(feed.subscribe(id, pending()).is_none());
        drop((one, two));
        assert!(feed.shared.ids().is_empty());
        assert!(feed.subscribe(id, pending()).is_some());
    }
}
