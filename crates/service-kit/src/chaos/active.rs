use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use super::aim::{Aim, Identity};
use super::bounds::LONGEST;
use super::count::{self, Ended};
use super::fault::{Fault, FaultRecord};
use super::mark::mark;
use super::seen::Seen;

/// Faults that a process obeys at the same time.
const MOST_ACTIVE: usize = 100;
/// So many messages of a fault are remembered at most.
const MOST_REMEMBERED: usize = 100_000;

/// The faults that this process obeys. Cheap to clone.
#[derive(Clone)]
pub struct Faults {
    inner: Arc<Inner>,
}

struct Inner {
    identity: Identity,
    active: RwLock<BTreeMap<String, Arc<Armed>>>,
    ended: Ended,
    /// Changes whenever a fault begins or ends, so that who waits for one to end looks again.
    changed: watch::Sender<()>,
}

/// A fault in force.
pub(super) struct Armed {
    pub(super) record: FaultRecord,
    /// Its id as text.
    pub(super) key: String,
    until: Instant,
    history: Arc<History>,
}

/// What a fault has done so far. It goes on when the fault is announced again.
#[derive(Default)]
struct History {
    aim: Aim,
    /// How often each message has failed or was sent. Only of messages that the fault is concerned with.
    times: Mutex<HashMap<Uuid, u32>>,
    topics: Mutex<BTreeSet<String>>,
}

impl Faults {
    /// None yet.
    pub fn new(identity: Identity) -> Self {
        let (changed, _) = watch::channel(());
        Faults { inner: Arc::new(Inner { identity, active: RwLock::default(), ended: Ended::default(), changed }) }
    }

    /// A fault was announced at that time; it must be [within bounds](FaultRecord::check). What concerns others or is over
    /// already is not taken in. One that is in force and announced again replaces itself and keeps its counts.
    pub fn begin(&self, record: FaultRecord, announced_at: DateTime<Utc>) {
        let key = record.id.to_string();
        let left = left(record.expires_at, announced_at, Utc::now());
        if left.is_zero() || !record.target.includes(&self.inner.identity) {
            return self.end(&key);
        }
        let (kind, seconds, until) = (record.fault.name(), left.as_secs_f64(), Instant::now() + left);
        let taken = self.update(|active| {
            let known = active.get(&key).map(|armed| armed.history.clone());
            if known.is_none() && active.len() >= MOST_ACTIVE {
                return false;
            }
            let armed = Armed { record, key: key.clone(), until, history: known.unwrap_or_default() };
            active.insert(key.clone(), Arc::new(armed));
            true
        });
        if taken {
            self.inner.ended.revive(&key);
            tracing::warn!(chaos.fault = key, chaos.type = kind, seconds, "a fault begins");
        } else {
            tracing::error!(chaos.fault = key, chaos.type = kind, "more than {MOST_ACTIVE} faults: it is not obeyed");
        }
    }

    /// A fault is taken back.
    pub fn end(&self, id: &str) {
        if let Some(armed) = self.update(|active| active.remove(id)) {
            tracing::warn!(chaos.fault = id, "a fault has ended");
            self.inner.ended.keep(armed);
        }
    }

    fn update<T>(&self, change: impl FnOnce(&mut BTreeMap<String, Arc<Armed>>) -> T) -> T {
        let mut active = self.inner.active.write().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut active);
        count::active(active.len());
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
            self.end(&armed.key);
        }
        live
    }

    /// Returns after `wait`, or as soon as `armed` is no longer in force, or announced as something else.
    pub(super) async fn hold(&self, armed: &Armed, wait: Duration) {
        let deadline = Instant::now() + wait.min(LONGEST);
        let mut changed = self.inner.changed.subscribe();
        loop {
            let Some(until) = self.until(armed) else { return };
            tokio::select! {
                () = tokio::time::sleep_until(deadline.min(until)) => return,
                _ = changed.changed() => {}
            }
        }
    }
}

impl Faults {
    /// When `armed` ends, as it was announced last; none if it is over, or something else by now.
    fn until(&self, armed: &Armed) -> Option<Instant> {
        let active = self.inner.active.read().unwrap_or_else(PoisonError::into_inner);
        active.get(&armed.key).filter(|now| now.fault() == armed.fault()).map(|now| now.until)
    }
}

impl Armed {
    pub(super) fn fault(&self) -> &Fault {
        &self.record.fault
    }

    /// Where it has hit.
    pub(super) fn topics(&self) -> BTreeSet<String> {
        lock(&self.history.topics).clone()
    }

    /// Whether this delivery of `message` is hit. If it is, it counts.
    pub(super) fn hits(&self, message: Seen<'_>) -> bool {
        self.hits_if(message, || true)
    }

    /// The same where it can be done only to some messages: others are spared, and counted so.
    pub(super) fn hits_if(&self, message: Seen<'_>, possible: impl FnOnce() -> bool) -> bool {
        if !self.draws(message, &message.place()) {
            return false;
        }
        let possible = possible();
        if possible {
            self.injected(message.topic(), message.traceparent());
        } else {
            count::spared(self.fault().name(), message.topic());
        }
        possible
    }

    /// Whether this time that `message` is sent is hit. If it is, it counts. Sent again, it draws another lot.
    pub(super) fn hits_sent(&self, message: Seen<'_>, id: Uuid) -> bool {
        // Not covered is not remembered: a service sends much that no fault is about.
        if !self.record.target.covers(message) {
            return false;
        }
        let place = format!("{id}#{}", self.time_of(id));
        let hit = self.draws(message, &place);
        if hit {
            self.injected(message.topic(), message.traceparent());
        }
        hit
    }

    fn draws(&self, message: Seen<'_>, place: &str) -> bool {
        let FaultRecord { target, blast_radius, seed, .. } = &self.record;
        target.covers(message) && self.history.aim.takes(blast_radius, *seed, message, place)
    }

    /// Counts one injection, and marks it on the trace of its message.
    fn injected(&self, topic: &str, traceparent: Option<&str>) {
        count::injected(&self.key, self.fault().name(), topic);
        let mut topics = lock(&self.history.topics);
        if !topics.contains(topic) {
            topics.insert(topic.to_owned());
        }
        drop(topics);
        mark(&self.record, topic, traceparent);
        tracing::debug!(chaos.fault = self.key, topic, "a fault has hit a message");
    }

    /// Draws whether attempts at `message`, whose id is `id`, are to fail. Once it is, it stays so.
    pub(super) fn condemn(&self, message: Seen<'_>, id: Uuid) {
        let known = lock(&self.history.times).contains_key(&id);
        if !known && self.draws(message, &id.to_string()) {
            let mut times = lock(&self.history.times);
            if times.len() < MOST_REMEMBERED {
                times.insert(id, 0);
            }
        }
    }

    /// Whether this attempt at the message `id` fails. The first that does counts.
    pub(super) fn fails(&self, topic: &str, id: Uuid, traceparent: Option<&str>) -> bool {
        let mut times = lock(&self.history.times);
        let Some(failed) = times.get_mut(&id) else { return false };
        if self.fault().failing_attempts().is_some_and(|most| *failed >= most) {
            return false;
        }
        *failed = failed.saturating_add(1);
        let first = *failed == 1;
        drop(times);
        if first {
            self.injected(topic, traceparent);
        }
        true
    }

    /// How often the message `id` was asked about before.
    fn time_of(&self, id: Uuid) -> u32 {
        let mut times = lock(&self.history.times);
        if times.len() >= MOST_REMEMBERED && !times.contains_key(&id) {
            return 0;
        }
        let time = times.entry(id).or_default();
        *time = time.saturating_add(1);
        *time - 1
    }
}

/// How long a fault still lasts at `now`. Its longest time counts from its announcement, not from when a process reads of
/// it: otherwise it would begin again with every process that starts.
fn left(expires_at: DateTime<Utc>, announced_at: DateTime<Utc>, now: DateTime<Utc>) -> Duration {
    let ends_at = TimeDelta::from_std(LONGEST)
        .ok()
        .and_then(|longest| announced_at.checked_add_signed(longest))
        .map_or(expires_at, |latest| expires_at.min(latest));
    // Also if the clock of whoever announced it is ahead.
    (ends_at - now).to_std().unwrap_or_default().min(LONGEST)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use messaging::Record;
    use serde_json::{Value, json};

    use super::*;

    fn faults() -> Faults {
        Faults::new(Identity { service: "s".into(), instance: "s-1".into() })
    }

    fn announced(faults: &Faults, id: Uuid, fault: &Value, radius: &Value) -> Arc<Armed> {
        let record = json!({
            "id": id, "target": {}, "fault": fault, "blastRadius": radius, "seed": 7,
            "expiresAt": Utc::now() + Duration::from_secs(60),
        });
        faults.begin(serde_json::from_value(record).expect("a fault"), Utc::now());
        faults.in_force().pop().expect("one in force")
    }

    fn record(offset: i64) -> Record {
        let (topic, key) = ("t".to_owned(), Some(b"k".to_vec()));
        Record { topic, partition: 0, offset, timestamp_ms: None, key, payload: None, headers: Vec::new() }
    }

    #[test]
    fn a_fault_lasts_no_longer_than_any_may_from_its_announcement_on() {
        let announced = DateTime::from_timestamp(1_800_000_000, 0).expect("a time");
        let never = DateTime::from_timestamp(32_472_144_000, 0).expect("a time");
        assert_eq!(left(never, announced, announced), LONGEST);
        let minute = Duration::from_secs(60);
        assert_eq!(left(never, announced, announced + minute), LONGEST - minute, "a process that starts later");
        assert_eq!(left(never, announced, announced + LONGEST), Duration::ZERO);
        assert_eq!(left(announced + minute, announced, announced), minute);
        assert_eq!(left(announced, announced, announced + minute), Duration::ZERO);
        assert_eq!(left(never, announced + minute, announced), LONGEST, "a clock that is ahead");
        assert_eq!(left(never, DateTime::<Utc>::MAX_UTC, announced), LONGEST);
    }

    #[test]
    fn a_fault_that_is_announced_again_goes_on_counting() {
        let (faults, id, kind) = (faults(), Uuid::from_u128(1), json!({ "type": "drop-message" }));
        let hits = |radius: &Value, offsets: std::ops::Range<i64>| {
            let armed = announced(&faults, id, &kind, radius);
            offsets.filter(|offset| armed.hits(Seen::In(&record(*offset)))).count()
        };
        assert_eq!(hits(&json!({ "first": 3 }), 0..2), 2);
        assert_eq!(hits(&json!({ "first": 3 }), 2..9), 1, "two of the three were hit before");
        assert_eq!(hits(&json!({ "every": 4 }), 9..12), 1, "the twelfth that matches");
    }

    #[test]
    fn an_error_ends_after_its_attempts_or_never_and_is_drawn_once() {
        let (faults, message) = (faults(), Uuid::from_u128(9));
        let failed = |fault: Value| {
            let armed = announced(&faults, Uuid::from_u128(2), &fault, &json!({ "first": 1 }));
            armed.condemn(Seen::In(&record(0)), message);
            armed.condemn(Seen::In(&record(0)), message);
            let failed = (0..5).filter(|_| armed.fails("t", message, None)).count();
            assert!(!armed.fails("t", Uuid::from_u128(10), None), "only the first is condemned");
            faults.end(&armed.key);
            failed
        };
        assert_eq!(failed(json!({ "type": "error", "kind": "transient", "attempts": 2 })), 2);
        assert_eq!(failed(json!({ "type": "error", "kind": "permanent" })), 5);
    }

    #[test]
    fn the_same_seed_drops_the_same_messages_and_one_that_is_sent_again_draws_again() {
        let dropped = || {
            let faults = faults();
            let armed =
                announced(&faults, Uuid::from_u128(3), &json!({ "type": "drop-reply" }), &json!({ "percentage": 50 }));
            let hit = |n: u128| armed.hits_sent(Seen::In(&record(0)), Uuid::from_u128(n));
            let first: Vec<_> = (0..100).map(hit).collect();
            let again: Vec<_> = (0..100).rev().map(hit).collect();
            (first, again)
        };
        let (first, mut again) = dropped();
        assert_eq!((first.clone(), again.clone()), dropped());
        again.reverse();
        assert_ne!(first, again);
    }

    #[tokio::test]
    async fn a_hold_follows_its_fault_and_ends_with_it() {
        let (faults, id, kind) = (faults(), Uuid::from_u128(4), json!({ "type": "pause-consumer" }));
        let armed = announced(&faults, id, &kind, &json!({}));
        let held = {
            let (faults, armed) = (faults.clone(), armed.clone());
            tokio::spawn(async move { faults.hold(&armed, LONGEST).await })
        };
        tokio::task::yield_now().await;
        announced(&faults, id, &kind, &json!({}));
        tokio::task::yield_now().await;
        assert!(!held.is_finished(), "it was announced again, as what it is");
        announced(&faults, id, &json!({ "type": "reorder" }), &json!({}));
        held.await.expect("it ends");
    }

    #[test]
    fn no_more_faults_are_obeyed_than_are_bearable() {
        let faults = faults();
        for n in 0..150 {
            announced(&faults, Uuid::from_u128(n), &json!({ "type": "reorder" }), &json!({}));
        }
        assert_eq!(faults.in_force().len(), MOST_ACTIVE);
    }
}
