//! What faults have done in this process, for everybody to see.

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use prometheus::{IntCounterVec, IntGauge, register_int_counter_vec, register_int_gauge};

use super::active::Armed;

static INJECTIONS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    register_int_counter_vec!(
        "chaos_injections_total",
        "Messages that a fault has hit in this process.",
        &["fault", "type", "topic"]
    )
    .expect("a metric is registered once, with a legal name")
});

static SPARED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    register_int_counter_vec!(
        "chaos_spared_total",
        "Messages that a fault was to hit and could not, such as one too large to be put back.",
        &["type", "topic"]
    )
    .expect("a metric is registered once, with a legal name")
});

static ACTIVE: LazyLock<IntGauge> = LazyLock::new(|| {
    register_int_gauge!("chaos_active_faults", "Faults that this process obeys at the moment.")
        .expect("a metric is registered once, with a legal name")
});

/// The counts of so many ended faults are kept.
const MOST_ENDED: usize = 100;

pub(super) fn injected(fault: &str, kind: &str, topic: &str) {
    INJECTIONS.with_label_values(&[fault, kind, topic]).inc();
}

pub(super) fn spared(kind: &str, topic: &str) {
    SPARED.with_label_values(&[kind, topic]).inc();
}

pub(super) fn active(faults: usize) {
    ACTIVE.set(i64::try_from(faults).unwrap_or(i64::MAX));
}

/// Faults that have ended and whose counts can still be read, the oldest first.
#[derive(Default)]
pub(super) struct Ended(Mutex<VecDeque<Arc<Armed>>>);

impl Ended {
    /// Keeps the counts of `fault` and drops those that are too many: no process has more series the longer it runs.
    pub(super) fn keep(&self, fault: Arc<Armed>) {
        let mut ended = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ended.retain(|other| other.key != fault.key);
        ended.push_back(fault);
        while ended.len() > MOST_ENDED {
            let Some(oldest) = ended.pop_front() else { return };
            for topic in oldest.topics() {
                // Fails only if it is gone already.
                drop(INJECTIONS.remove_label_values(&[oldest.key.as_str(), oldest.fault().name(), topic.as_str()]));
            }
        }
    }

    /// Forgets that `fault` has ended: it is announced again, and its counts go on.
    pub(super) fn revive(&self, fault: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|other| other.key != fault);
    }
}
