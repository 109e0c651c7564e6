//! Every metric of this service, named once.

use std::sync::LazyLock;

use prometheus::{
    IntCounterVec, IntGauge, IntGaugeVec, register_int_counter_vec, register_int_gauge, register_int_gauge_vec,
};

const LEGAL: &str = "a metric is registered once, with a legal name";

/// Letters that were found, by the format of their headers.
pub(crate) static INDEXED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    register_int_counter_vec!("dlq_indexed_letters_total", "Dead letters found.", &["format"]).expect(LEGAL)
});

/// Letters in the index, by original topic and state.
pub(crate) static LETTERS: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    register_int_gauge_vec!("dlq_letters", "Dead letters in the index.", &["topic", "state"]).expect(LEGAL)
});

/// Replays, by what came of them: `sent`, `not-sent`, `sent-again` (after a crash), `reprocessed`, `failed-again`.
pub(crate) static REPLAYS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    register_int_counter_vec!("dlq_replays_total", "Messages sent back, by result.", &["result"]).expect(LEGAL)
});

/// What was asked for and refused, by act and reason.
pub(crate) static REFUSALS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    register_int_counter_vec!("dlq_refusals_total", "Acts that were refused.", &["act", "reason"]).expect(LEGAL)
});

/// Campaigns that this replica runs now.
pub(crate) static CAMPAIGNS: LazyLock<IntGauge> =
    LazyLock::new(|| register_int_gauge!("dlq_campaigns_running", "Campaigns run by this replica.").expect(LEGAL));
