//! What passed, and what was done to it. The two counters of bytes are Toxiproxy's, by its names and labels.

use std::sync::LazyLock;

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, register_int_counter_vec, register_int_gauge_vec};

use crate::model::Direction;

fn counter(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    register_int_counter_vec!(name, help, labels).expect("the metric is registered once, with valid labels")
}

const TRAFFIC_LABELS: &[&str] = &["direction", "proxy", "listener", "upstream"];

static RECEIVED: LazyLock<IntCounterVec> =
    LazyLock::new(|| counter("toxiproxy_proxy_received_bytes_total", "Bytes read from either side.", TRAFFIC_LABELS));

static SENT: LazyLock<IntCounterVec> =
    LazyLock::new(|| counter("toxiproxy_proxy_sent_bytes_total", "Bytes written to either side.", TRAFFIC_LABELS));

static CONNECTIONS: LazyLock<IntCounterVec> =
    LazyLock::new(|| counter("fault_proxy_connections_total", "Connections accepted.", &["proxy"]));

static UNREACHABLE: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter("fault_proxy_unreachable_upstream_total", "Connections closed because the upstream refused.", &["proxy"])
});

static OPEN: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    register_int_gauge_vec!("fault_proxy_open_connections", "Connections open now.", &["proxy"])
        .expect("the metric is registered once, with valid labels")
});

const PROXY_LABEL: &[&str] = &["proxy"];
const TOXIC_LABELS: &[&str] = &["proxy", "toxic", "type", "stream"];

static HIT_CONNECTIONS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter("fault_proxy_toxic_connections_total", "Connections that a toxic was put on.", TOXIC_LABELS)
});

static HIT_BYTES: LazyLock<IntCounterVec> =
    LazyLock::new(|| counter("fault_proxy_toxic_bytes_total", "Bytes that came to a toxic.", TOXIC_LABELS));

static DROPPED_BYTES: LazyLock<IntCounterVec> =
    LazyLock::new(|| counter("fault_proxy_toxic_dropped_bytes_total", "Bytes that a toxic swallowed.", TOXIC_LABELS));

/// Removes every series of the proxy named `proxy`: whoever makes and deletes proxies all day must not make this
/// process's metrics grow.
pub(crate) fn forget(proxy: &str) {
    for (counters, labels) in [
        (&RECEIVED, TRAFFIC_LABELS),
        (&SENT, TRAFFIC_LABELS),
        (&CONNECTIONS, PROXY_LABEL),
        (&UNREACHABLE, PROXY_LABEL),
        (&HIT_CONNECTIONS, TOXIC_LABELS),
        (&HIT_BYTES, TOXIC_LABELS),
        (&DROPPED_BYTES, TOXIC_LABELS),
    ] {
        forget_in(counters, labels, proxy);
    }
    forget_in(&OPEN, PROXY_LABEL, proxy);
}

fn forget_in<B: MetricVecBuilder>(series: &MetricVec<B>, labels: &[&str], proxy: &str) {
    for family in series.collect() {
        for metric in family.get_metric() {
            let value = |label: &&str| metric.get_label().iter().find(|pair| pair.name() == *label).map(|p| p.value());
            if value(&"proxy") == Some(proxy) {
                let values: Vec<&str> = labels.iter().filter_map(value).collect();
                // Fails only if it is gone already.
                drop(series.remove_label_values(&values));
            }
        }
    }
}

/// What a toxic did.
#[derive(Clone, Debug)]
pub(crate) struct Hits {
    pub(crate) connections: IntCounter,
    pub(crate) bytes: IntCounter,
    pub(crate) dropped: IntCounter,
}

impl Hits {
    pub(crate) fn of(proxy: &str, toxic: &str, kind: &str, direction: Direction) -> Self {
        let labels = [proxy, toxic, kind, direction.name()];
        Self {
            connections: HIT_CONNECTIONS.with_label_values(&labels),
            bytes: HIT_BYTES.with_label_values(&labels),
            dropped: DROPPED_BYTES.with_label_values(&labels),
        }
    }

    /// Counters of nobody.
    #[cfg(test)]
    pub(crate) fn unregistered() -> Self {
        let counter = || IntCounter::new("test", "test").expect("a valid name");
        Self { connections: counter(), bytes: counter(), dropped: counter() }
    }
}

/// What goes through one direction of a proxy.
#[derive(Clone)]
pub(crate) struct Traffic {
    pub(crate) received: IntCounter,
    pub(crate) sent: IntCounter,
}

impl Traffic {
    pub(crate) fn of(direction: Direction, proxy: &str, listener: &str, upstream: &str) -> Self {
        let labels = [direction.name(), proxy, listener, upstream];
        Self { received: RECEIVED.with_label_values(&labels), sent: SENT.with_label_values(&labels) }
    }
}

/// The connections of a proxy.
#[derive(Clone)]
pub(crate) struct Connections {
    accepted: IntCounter,
    open: IntGauge,
    pub(crate) unreachable: IntCounter,
}

impl Connections {
    pub(crate) fn of(proxy: &str) -> Self {
        Self {
            accepted: CONNECTIONS.with_label_values(&[proxy]),
            open: OPEN.with_label_values(&[proxy]),
            unreachable: UNREACHABLE.with_label_values(&[proxy]),
        }
    }

    /// Counts one as open until it is dropped.
    pub(crate) fn opened(&self) -> Open {
        self.accepted.inc();
        self.open.inc();
        Open(self.open.clone())
    }
}

/// An open connection.
pub(crate) struct Open(IntGauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
