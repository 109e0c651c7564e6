//! What this service counts.

use std::sync::LazyLock;

use prometheus::{IntCounter, IntCounterVec, register_int_counter, register_int_counter_vec};

static COMMANDS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    register_int_counter_vec!(
        "payment_commands_total",
        "Commands that took effect, by command (charge, refund) and the state they led to",
        &["command", "state"]
    )
    .expect("registered once")
});

static DUPLICATES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    register_int_counter_vec!(
        "payment_duplicate_commands_total",
        "Commands that had taken effect before, by command",
        &["command"]
    )
    .expect("registered once")
});

static TOMBSTONES: LazyLock<IntCounter> = LazyLock::new(|| {
    register_int_counter!("payment_tombstones_total", "Refunds that came before their charge").expect("registered once")
});

static SLOW_FAILURES: LazyLock<IntCounter> = LazyLock::new(|| {
    register_int_counter!("payment_slow_answer_failures_total", "Rounds of slow answers that failed and were repeated")
        .expect("registered once")
});

/// A command took effect and left its payment in `state`.
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

/// A round of slow answers failed.
pub fn slow_answers_failed() {
    SLOW_FAILURES.inc();
}
