//! What this service counts.

use std::sync::LazyLock;

use prometheus::{IntCounter, IntCounterVec, register_int_counter, register_int_counter_vec};

static SENT: LazyLock<IntCounterVec> = LazyLock::new(|| {
    register_int_counter_vec!("notification_sent_total", "Notifications sent, by kind", &["kind"])
        .expect("registered once")
});

static DUPLICATES: LazyLock<IntCounter> = LazyLock::new(|| {
    register_int_counter!("notification_duplicate_events_total", "Ends of orders that had been told before")
        .expect("registered once")
});

/// A notification of `kind` was sent.
pub fn sent(kind: &str) {
    SENT.with_label_values(&[kind]).inc();
}

/// `count` events had been told before.
pub fn duplicates(count: usize) {
    DUPLICATES.inc_by(count as u64);
}
