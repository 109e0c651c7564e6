//! Every metric of the orchestrator, named once. Labels are bounded: definitions, steps and kinds are closed sets.

use std::sync::LazyLock;

use prometheus::{
    Histogram, IntCounter, IntCounterVec, IntGauge, register_histogram, register_int_counter, register_int_counter_vec,
    register_int_gauge,
};

const LEGAL: &str = "a metric is registered once, with a legal name";

/// Transitions stored, by definition, step (empty for the saga as a whole) and type.
pub(crate) static TRANSITIONS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let labels = &["definition", "step", "type"];
    register_int_counter_vec!("saga_transitions_total", "Transitions of sagas.", labels).expect(LEGAL)
});

/// Sagas that parked: each one waits for an operator.
pub(crate) static PARKED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    register_int_counter_vec!("saga_parked_total", "Sagas that came to rest unfinished.", &["definition"]).expect(LEGAL)
});

/// Messages that were taken before, by definition.
pub(crate) static DUPLICATES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Messages delivered again; what they caused and is unanswered was sent again.";
    register_int_counter_vec!("saga_duplicates_total", help, &["definition"]).expect(LEGAL)
});

/// Answers that came too late to matter, by definition and reason.
pub(crate) static IGNORED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let labels = &["definition", "reason"];
    register_int_counter_vec!("saga_ignored_replies_total", "Replies that changed nothing.", labels).expect(LEGAL)
});

/// Sagas in flight on the partitions of this process.
pub(crate) static IN_FLIGHT: LazyLock<IntGauge> = LazyLock::new(|| {
    register_int_gauge!("saga_in_flight", "Unfinished, unparked sagas of the partitions owned.").expect(LEGAL)
});

/// 1 while starts wait because too many sagas are in flight.
pub(crate) static STARTS_PAUSED: LazyLock<IntGauge> = LazyLock::new(|| {
    register_int_gauge!("saga_starts_paused", "1 while starts wait so that replies go first.").expect(LEGAL)
});

/// Timers that were due, by what came of them: `fired` sent something, `moved` found nothing due.
pub(crate) static TIMERS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    register_int_counter_vec!("saga_timers_total", "Timers that were due.", &["result"]).expect(LEGAL)
});

/// Batches that were decided again because another writer had been faster.
pub(crate) static CONFLICTS: LazyLock<IntCounter> = LazyLock::new(|| {
    register_int_counter!("saga_write_conflicts_total", "Writes repeated because of another writer.").expect(LEGAL)
});

/// Operators' verbs, by verb and result.
pub(crate) static VERBS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let labels = &["verb", "result"];
    register_int_counter_vec!("saga_operator_verbs_total", "Verbs of operators.", labels).expect(LEGAL)
});

/// Sagas in a batch.
pub(crate) static BATCH_SAGAS: LazyLock<Histogram> = LazyLock::new(|| {
    let buckets = vec![1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0];
    register_histogram!("saga_batch_sagas", "Sagas folded in one transaction.", buckets).expect(LEGAL)
});
