//! Every metric of order-api, named once. Labels are closed sets.

use std::sync::LazyLock;

use prometheus::{
    Histogram, IntCounter, IntCounterVec, IntGauge, register_histogram, register_int_counter, register_int_counter_vec,
    register_int_gauge,
};

fn counter(name: &str, help: &str) -> IntCounter {
    register_int_counter!(name, help).expect("a metric is registered once, with a legal name")
}

fn gauge(name: &str, help: &str) -> IntGauge {
    register_int_gauge!(name, help).expect("a metric is registered once, with a legal name")
}

fn histogram(name: &str, help: &str, buckets: Vec<f64>) -> Histogram {
    register_histogram!(name, help, buckets).expect("a metric is registered once, with a legal name")
}

/// Orders that became durable.
pub(crate) static ACCEPTED: LazyLock<IntCounter> =
    LazyLock::new(|| counter("order_api_orders_accepted_total", "Orders that became durable."));

/// Requests for an order that were answered otherwise than 202, by reason.
pub(crate) static REFUSED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    register_int_counter_vec!(
        "order_api_orders_refused_total",
        "Requests for an order not answered 202, by reason.",
        &["reason"]
    )
    .expect("a metric is registered once, with a legal name")
});

/// Orders in one insert.
pub(crate) static BATCH_ORDERS: LazyLock<Histogram> = LazyLock::new(|| {
    let buckets = vec![1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0];
    histogram("order_api_insert_batch_orders", "Orders inserted by one statement.", buckets)
});

/// Time of one insert, until it was durable.
pub(crate) static INSERT_SECONDS: LazyLock<Histogram> = LazyLock::new(|| {
    let buckets = vec![0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0];
    histogram("order_api_insert_duration_seconds", "Time of one insert, until it was durable.", buckets)
});

/// Orders waiting for a writer.
pub(crate) static QUEUED: LazyLock<IntGauge> =
    LazyLock::new(|| gauge("order_api_queued_orders", "Orders waiting for a writer."));

/// End events by what they did: `applied`, or `ignored` for a version that is not greater.
pub(crate) static END_EVENTS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    register_int_counter_vec!("order_api_end_events_total", "Events about an order's end, by outcome.", &["outcome"])
        .expect("a metric is registered once, with a legal name")
});

/// Orders published again because they were pending for too long, or parked.
pub(crate) static REEMITTED: LazyLock<IntCounter> = LazyLock::new(|| {
    counter("order_api_orders_reemitted_total", "Orders published again for being pending too long, or parked.")
});

/// Orders that are pending for too long, or parked, as the reconciler saw them last.
pub(crate) static STRAGGLERS: LazyLock<IntGauge> =
    LazyLock::new(|| gauge("order_api_straggling_orders", "Orders pending for too long, or parked."));

/// Bytes of log that wait to be published, as last looked at.
pub(crate) static RETAINED_BYTES: LazyLock<IntGauge> =
    LazyLock::new(|| gauge("order_api_outbox_retained_bytes", "Bytes of log that PostgreSQL keeps for the outbox."));

/// Age of the newest heartbeat that came from the database through to Kafka, as last looked at.
pub(crate) static HEARTBEAT_AGE: LazyLock<IntGauge> = LazyLock::new(|| {
    let help = "Age of the newest heartbeat that has come from the database through to Kafka.";
    gauge("order_api_cdc_heartbeat_age_seconds", help)
});

/// Whether the replication slot is there and not lost.
pub(crate) static SLOT_USABLE: LazyLock<IntGauge> =
    LazyLock::new(|| gauge("order_api_cdc_slot_usable", "1 while the replication slot is there and not lost."));

/// Whether the publication is there and covers outbox and heartbeats.
pub(crate) static PUBLICATION_WHOLE: LazyLock<IntGauge> = LazyLock::new(|| {
    gauge("order_api_cdc_publication_whole", "1 while the publication covers the outbox and the heartbeats.")
});

/// Partitions of the outbox.
pub(crate) static OUTBOX_PARTITIONS: LazyLock<IntGauge> =
    LazyLock::new(|| gauge("order_api_outbox_partitions", "Daily partitions of the outbox."));

/// Rows in the outbox's default partition: above 0 when partitions were not made ahead.
pub(crate) static OUTBOX_DEFAULT_ROWS: LazyLock<IntGauge> =
    LazyLock::new(|| gauge("order_api_outbox_default_rows", "Outbox rows outside of the daily partitions."));

/// Open streams of events.
pub(crate) static SUBSCRIBERS: LazyLock<IntGauge> =
    LazyLock::new(|| gauge("order_api_event_subscribers", "Open streams of order events."));
