//! What this service counts.

use std::sync::LazyLock;

use prometheus::{IntCounter, IntCounterVec, register_int_counter, register_int_counter_vec};

static COMMANDS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    register_int_counter_vec!(
        "inventory_commands_total",
        "Messages that took effect, by command (reserve, release, complete) and the state they led to",
        &["command", "state"]
    )
    .expect("registered once")
});

static DUPLICATES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    register_int_counter_vec!(
        "inventory_duplicate_commands_total",
        "Messages that changed nothing, by command: they had taken effect before, or came after their undo",
        &["command"]
    )
    .expect("registered once")
});

static TOMBSTONES: LazyLock<IntCounter> = LazyLock::new(|| {
    register_int_counter!("inventory_tombstones_total", "Releases that came before their reservation")
        .expect("registered once")
});

static ANOMALIES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    register_int_counter_vec!(
        "inventory_anomalies_total",
        "Messages that contradict the state of their reservation and changed nothing, by message and state",
        &["message", "state"]
    )
    .expect("registered once")
});

/// A message took effect and left its reservation in `state`.
pub fn applied(command: &str, state: &str) {
    COMMANDS.with_label_values(&[command, state]).inc();
}

/// `count` messages changed nothing.
pub fn duplicates(command: &str, count: usize) {
    DUPLICATES.with_label_values(&[command]).inc_by(count as u64);
}

/// An undo came before its command.
pub fn tombstone() {
    TOMBSTONES.inc();
}

/// A message came that its reservation's state forbids.
pub fn anomaly(message: &str, state: &str) {
    ANOMALIES.with_label_values(&[message, state]).inc();
}
