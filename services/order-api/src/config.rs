//! The configuration of order-api; `config.default.toml` says what each key means.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use service_kit::{Common, ServiceConfig};

/// All sections: those of every service, and our own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    #[serde(flatten)]
    pub common: Common,
    /// `[writer]`
    pub writer: WriterConfig,
    /// `[events]`
    pub events: EventsConfig,
    /// `[reconciler]`
    pub reconciler: ReconcilerConfig,
    /// `[outbox]`
    pub outbox: OutboxConfig,
    /// `[backlog]`
    pub backlog: BacklogConfig,
    /// `[change_capture]`
    pub change_capture: ChangeCaptureConfig,
}

/// `[writer]`: how orders get into the database.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WriterConfig {
    pub workers: usize,
    pub queue_capacity: usize,
    pub max_batch: usize,
    pub timeout_ms: u64,
}

impl WriterConfig {
    /// How long a request may wait for its order to be durable.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

/// `[events]`: streams of an order's status.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventsConfig {
    pub poll_interval_ms: u64,
    pub max_subscribers: usize,
    pub keep_alive_ms: u64,
}

/// `[reconciler]`: orders published again.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReconcilerConfig {
    pub interval_ms: u64,
    pub pending_after_ms: u64,
    pub max_interval_ms: u64,
    pub max_batch: u32,
}

/// `[outbox]`: partitions.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutboxConfig {
    pub maintenance_interval_ms: u64,
    pub days_ahead: u16,
    pub keep_days: u16,
}

/// `[backlog]`: when orders are refused because the outbox is not published.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BacklogConfig {
    pub interval_ms: u64,
    pub max_retained_mb: u64,
}

/// `[change_capture]`: when heartbeats from the database are missed at Kafka.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeCaptureConfig {
    pub interval_ms: u64,
    pub stalled_after_ms: u64,
}

impl ServiceConfig for Config {
    fn common(&self) -> &Common {
        &self.common
    }

    fn validate(&self, errors: &mut Vec<String>) {
        let positive = [
            ("writer.workers", self.writer.workers as u64),
            ("writer.queue_capacity", self.writer.queue_capacity as u64),
            ("writer.max_batch", self.writer.max_batch as u64),
            ("writer.timeout_ms", self.writer.timeout_ms),
            ("events.poll_interval_ms", self.events.poll_interval_ms),
            ("events.max_subscribers", self.events.max_subscribers as u64),
            ("events.keep_alive_ms", self.events.keep_alive_ms),
            ("reconciler.interval_ms", self.reconciler.interval_ms),
            ("reconciler.pending_after_ms", self.reconciler.pending_after_ms),
            ("reconciler.max_batch", self.reconciler.max_batch.into()),
            ("outbox.maintenance_interval_ms", self.outbox.maintenance_interval_ms),
            ("backlog.interval_ms", self.backlog.interval_ms),
            ("backlog.max_retained_mb", self.backlog.max_retained_mb),
            ("change_capture.interval_ms", self.change_capture.interval_ms),
            ("change_capture.stalled_after_ms", self.change_capture.stalled_after_ms),
        ];
        for (key, _) in positive.into_iter().filter(|(_, value)| *value == 0) {
            errors.push(format!("{key} is 0: it must be at least 1"));
        }
        if self.writer.workers >= self.common.database.max_connections as usize {
            errors.push(format!(
                "writer.workers is {}: it must be below database.max_connections, {}, for readers need connections too",
                self.writer.workers, self.common.database.max_connections
            ));
        }
        if self.writer.timeout_ms >= self.common.http.request_timeout_ms {
            errors.push(format!(
                "writer.timeout_ms is {}: it must be below http.request_timeout_ms, {}",
                self.writer.timeout_ms, self.common.http.request_timeout_ms
            ));
        }
        if self.reconciler.max_interval_ms < self.reconciler.pending_after_ms {
            errors.push(format!(
                "reconciler.max_interval_ms is {}: it must be at least reconciler.pending_after_ms, {}",
                self.reconciler.max_interval_ms, self.reconciler.pending_after_ms
            ));
        }
        if self.outbox.keep_days < 8 {
            errors.push(format!("outbox.keep_days is {}: it must be at least 8", self.outbox.keep_days));
        }
        if !(1..=366).contains(&self.outbox.days_ahead) {
            errors.push(format!("outbox.days_ahead is {}: it must be from 1 to 366", self.outbox.days_ahead));
        }
    }
}
