use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use chrono::Utc;
use prometheus::{IntCounterVec, IntGauge, register_int_counter_vec, register_int_gauge};
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use super::aim::{Aim, Identity};
use super::fault::{Fault, FaultRecord};

static INJECTIONS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    register_int_counter_vec!(
        "chaos_injections_total",
        "Messages that a fault has hit in this process.",
        &["fault", "type", "topic"]
    )
    .expect("a metric is registered once, with a legal name")
});

static ACTIVE: LazyLock<IntGauge> = LazyLock::new(|| {
    register_int_gauge!("chaos_active_faults", "Faults that this process obeys at the moment.")
        .expect("a metric is registered once, with a legal name")
});

/// No fault lasts longer, whatever its record says: a wrong clock must not make one stay for ever.
const LONGEST: Duration = Duration::from_secs(15 * 60);
/// Attempts are remembered for so many messages of a fault at most.
const MOST_REMEMBERED: usize = 100_000;

/// The faults that this process obeys. Cheap to clone.
#[derive(Clone)]
pub struct Faults {
    inner: Arc<Inner>,
}

struct Inner {
    identity: Identity,
    active: RwLock<BTreeMap<String, Arc<Armed>>>,
    /// Changes whenever a fault begins or ends, so that who waits for one to end looks again.
    changed: watch::Sender<()>,
}

/// A fault in force.
pub(super) struct Armed {
    pub(super) record: FaultRecord,
    pub(super) until: Instant,
    aim: Aim,
    attempts: Mutex<HashMap<Uuid, u32>>,
}

impl Faults {
    /// None yet.
    pub fn new(identity: Identity) -> Self {
        let (changed, _) = watch::channel(());
        Faults { inner: Arc::new(Inner { identity, active: RwLock::default(), changed }) }
    }

    /// A fault is announced. What concerns others or is over already is not taken in; one that is announced again
    /// replaces itself.
    pub fn begin(&self, record: FaultRecord) {
        let key = record.id.to_string();
        let left = (record.expires_at - Utc::now()).to_std().unwrap_or_default().min(LONGEST);
        if left.is_zero() || !record.target.includes(&self.inner.identity) {
            return self.end(&key);
        }
        tracing::warn!(chaos.fault = key, chaos.type = record.fault.name(), seconds = left.as_secs_f64(), "a fault begins");
        let until = Instant::now() + left;
        let armed = Armed { record, until, aim: Aim::default(), attempts: Mutex::default() };
        self.update(|active| active.insert(key, Arc::new(armed)));
    }

    /// A fault is taken back.
    pub fn end(&self, id: &str) {
        if self.update(|active| active.remove(id)).is_some() {
            tracing::warn!(chaos.fault = id, "a fault has ended");
        }
    }

    fn update<T>(&self, change: impl FnOnce(&mut BTreeMap<String, Arc<Armed>>) -> T) -> T {
        let mut active = self.inner.active.write().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut active);
        ACTIVE.set(i64::try_from(active.len()).unwrap_or(i64::MAX));
        drop(active);
        self.inner.changed.send_replace(());
        result
    }

    /// What is in force now, in the order of their ids. What has expired is forgotten.
    pub(super) fn in_force(&self) -> Vec<Arc<Armed>> {
        let now = Instant::now();
        let active = self.inner.active.read().unwrap_or_else(PoisonError::into_inner);
        if active.is_empty() {
            return Vec::new();
        }
        let (live, over): (Vec<_>, Vec<_>) = active.values().cloned().partition(|armed| armed.until > now);
        drop(active);
        for armed in over {
            self.end(&armed.record.id.to_string());
        }
        live
    }

    /// Returns at `deadline`, or as soon as `armed` is no longer in force.
    pub(super) async fn hold(&self, armed: &Armed, deadline: Instant) {
        let id = armed.record.id.to_string();
        let mut changed = self.inner.changed.subscribe();
        let end = deadline.min(armed.until);
        loop {
            let active = self.inner.active.read().unwrap_or_else(PoisonError::into_inner).contains_key(&id);
            if !active {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep_until(end) => return,
                _ = changed.changed() => {}
            }
        }
    }
}

impl Armed {
    /// Whether this delivery is hit, counted if it is.
    pub(super) fn hits(&self, topic: &str, step: Option<&str>, key: Option<&str>, place: &str) -> bool {
        let FaultRecord { target, blast_radius, seed, .. } = &self.record;
        let hit = target.covers(topic, step) && self.aim.takes(blast_radius, *seed, key, place);
        if hit {
            self.count(topic);
        }
        hit
    }

    /// Counts one injection.
    fn count(&self, topic: &str) {
        let id = self.record.id.to_string();
        INJECTIONS.with_label_values(&[id.as_str(), self.record.fault.name(), topic]).inc();
        tracing::debug!(chaos.fault = id, topic, "a fault has hit a message");
    }

    /// Whether the message `id` is to fail once more, of `attempts` times in all.
    pub(super) fn fails_again(&self, id: Uuid, attempts: u32, draw: impl FnOnce() -> bool) -> bool {
        let mut remembered = self.remembered();
        if !remembered.contains_key(&id) {
            if remembered.len() >= MOST_REMEMBERED {
                return false;
            }
            remembered.insert(id, if draw() { attempts } else { 0 });
        }
        match remembered.get_mut(&id) {
            Some(left) if *left > 0 => {
                *left -= 1;
                true
            }
            _ => false,
        }
    }

    /// Whether the message `id` is among the victims of an error that lasts.
    pub(super) fn always_fails(&self, id: Uuid, draw: impl FnOnce() -> bool) -> bool {
        let mut remembered = self.remembered();
        if remembered.len() >= MOST_REMEMBERED && !remembered.contains_key(&id) {
            return false;
        }
        *remembered.entry(id).or_insert_with(|| u32::from(draw())) > 0
    }

    fn remembered(&self) -> MutexGuard<'_, HashMap<Uuid, u32>> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn fault(&self) -> &Fault {
        &self.record.fault
    }
}
