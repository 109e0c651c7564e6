//! Every metric of the runtime, named once. Labels are bounded: groups, topics and reasons are closed sets.

use std::sync::LazyLock;

use prometheus::core::Collector;
use prometheus::{
    GaugeVec, HistogramVec, IntCounterVec, IntGaugeVec, register_gauge_vec, register_histogram_vec,
    register_int_counter_vec, register_int_gauge_vec,
};

fn counter(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    register_int_counter_vec!(name, help, labels).expect("a metric is registered once, with a legal name")
}

fn gauge(name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    register_int_gauge_vec!(name, help, labels).expect("a metric is registered once, with a legal name")
}

fn histogram(name: &str, help: &str, labels: &[&str], buckets: Vec<f64>) -> HistogramVec {
    register_histogram_vec!(name, help, labels, buckets).expect("a metric is registered once, with a legal name")
}

/// Messages taken from Kafka, by group and topic.
pub(crate) static CONSUMED: LazyLock<IntCounterVec> =
    LazyLock::new(|| counter("messaging_consumed_messages_total", "Messages taken from Kafka.", &["group", "topic"]));

/// Messages acknowledged by the broker, by topic.
pub(crate) static PUBLISHED: LazyLock<IntCounterVec> =
    LazyLock::new(|| counter("messaging_published_messages_total", "Messages acknowledged by Kafka.", &["topic"]));

/// Batches produced again because an acknowledgement was missing.
pub(crate) static PUBLISH_RETRIES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter("messaging_publish_retries_total", "Batches produced again for want of an acknowledgement.", &["client"])
});

/// Dead letters written, by group, original topic and reason.
pub(crate) static DEAD_LETTERS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter("messaging_dead_letters_total", "Messages sent to the dead letters.", &["group", "topic", "reason"])
});

/// Attempts that ended with "a dependency is unavailable", by group.
pub(crate) static RETRIES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter("messaging_handler_retries_total", "Batches held back because a dependency is unavailable.", &["group"])
});

/// 1 while the group waits for a dependency.
pub(crate) static WAITING: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    gauge("messaging_consumer_waiting", "1 while the consumer waits for a dependency that is down.", &["group"])
});

/// Attempts at the batch that waits which have failed, by group and what is waited for.
pub(crate) static WAIT_ATTEMPTS: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let help = "Failed attempts at the batch that waits, those of earlier processes too; 0 while none waits.";
    gauge("messaging_consumer_wait_attempts", help, &["group", "cause"])
});

/// Since when the group waits, by what is waited for.
pub(crate) static WAITING_SINCE: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let help = "When the consumer began to wait, in seconds since 1970; 0 while it does not.";
    gauge("messaging_consumer_waiting_since_timestamp_seconds", help, &["group", "cause"])
});

/// Messages that are not processed, by group and topic, in the partitions of this process.
pub(crate) static LAG: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let help = "Messages that are not processed, in the partitions of this process; measured every 5 s.";
    gauge("messaging_consumer_lag_messages", help, &["group", "topic"])
});

/// How many messages `group` has not processed in the partitions of this process, as it was measured last.
pub fn lag(group: &str) -> i64 {
    let families = LAG.collect();
    let metrics = families.iter().flat_map(|family| family.get_metric());
    let of_group = metrics
        .filter(|metric| metric.get_label().iter().any(|label| label.name() == "group" && label.value() == group));
    // They were whole numbers before they became part of a metric.
    of_group.map(|metric| metric.get_gauge().get_value() as i64).sum()
}

/// How old the oldest message in hand, or behind a closed gate is, by group and topic.
pub(crate) static OLDEST_MESSAGE_AGE: LazyLock<GaugeVec> = LazyLock::new(|| {
    register_gauge_vec!(
        "messaging_consumer_oldest_message_age_seconds",
        "Age of the topic's oldest message in the batch in hand or last in hand, or while the topic is paused in the last \
         that had any; without one, how long messages are seen to wait; 0 when all is processed.",
        &["group", "topic"]
    )
    .expect("a metric is registered once, with a legal name")
});

/// Messages in a batch, by group.
pub(crate) static BATCH_MESSAGES: LazyLock<HistogramVec> = LazyLock::new(|| {
    histogram(
        "messaging_batch_messages",
        "Messages handled in one transaction.",
        &["group"],
        vec![1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0],
    )
});

/// Seconds a batch took, by group and stage (`handle`, `publish`).
pub(crate) static BATCH_SECONDS: LazyLock<HistogramVec> = LazyLock::new(|| {
    histogram(
        "messaging_process_duration_seconds",
        "Time a batch spent in its transaction and in waiting for acknowledgements.",
        &["group", "stage"],
        vec![0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 30.0],
    )
});

/// Partitions owned, by group.
pub(crate) static OWNED_PARTITIONS: LazyLock<IntGaugeVec> =
    LazyLock::new(|| gauge("messaging_owned_partitions", "Partitions assigned to this process.", &["group"]));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lag_of_a_group_is_that_of_all_its_topics_and_of_no_other_group() {
        for (group, topic, messages) in [("behind", "a", 3), ("behind", "b", 4), ("another", "a", 100)] {
            LAG.with_label_values(&[group, topic]).set(messages);
        }
        assert_eq!((lag("behind"), lag("nobody")), (7, 0));
    }
}
