//! What this service counts.

use std::sync::LazyLock;

use prometheus::{IntCounter, IntCounterVec, register_int_counter, register_int_counter_vec};

static COMMANDS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    register_int_counter_vec!(
        "shipping_commands_total",
        "Commands that took effect, by command (schedule, cancel) and the state they led to",
        &["command", "state"]
    )
    .expect("registered once")
});

static DUPLICATES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    register_int_counter_vec!(
        "shipping_duplicate_commands_total",
        "Commands that changed nothing, by command: they had taken effect before, or came after their undo",
        &["command"]
    )
    .expect("registered once")
});

static TOMBSTONES: LazyLock<IntCounter> = LazyLock::new(|| {
    register_int_counter!("shipping_tombstones_total", "Cancellations that came before their booking")
        .expect("registered once")
});

/// A command took effect and left its shipment in `state`.
pub fn applied(command: &str, state: &str) {
    COMMANDS.with_label_values(&[command, state]).inc();
}

/// `count` commands changed nothing.
pub fn duplicates(command: &str, count: usize) {
    DUPLICATES.with_label_values(&[command]).inc_by(count as u64);
}

/// An undo came before its command.
pub fn tombstone() {
    TOMBSTONES.inc();
}
