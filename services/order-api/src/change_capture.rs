//! Measures whether what is written to the database comes out at Kafka.
//!
//! A connector that says RUNNING proves nothing. Debezium writes a row into `cdc_heartbeat` every 10 seconds; it goes the
//! whole way of an order, through log, slot, publication, connector and broker. Here it is read at the end, and how old
//! the last one is that came through is compared by the database's clock, which also wrote it.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use messaging::{ClientError, KafkaConfig, Record, follow};
use serde_json::Value;
use service_kit::CancellationToken;
use service_kit::health::CheckResult;
use sqlx::PgPool;

use crate::config::ChangeCaptureConfig;
use crate::metrics;

/// Where Debezium's heartbeats come out.
const TOPIC: &str = "cdc.heartbeat";

/// The time, whether there is a slot, whether it is lost, and whether the publication has what is to be read. Every role
/// may ask.
pub const LOOK: &str = "
SELECT now(), count(*) > 0, COALESCE(bool_or(wal_status = 'lost'), false),
       (SELECT count(*) FROM pg_publication_tables
         WHERE pubname = 'orders_outbox' AND tablename IN ('order_outbox', 'cdc_heartbeat')) = 2
  FROM pg_replication_slots WHERE database = current_database() AND slot_type = 'logical' AND NOT temporary";

/// What is known. Cheap to clone.
#[derive(Clone)]
pub struct ChangeCapture {
    config: ChangeCaptureConfig,
    /// When the newest heartbeat that came through was written, in microseconds of the epoch.
    newest: Arc<AtomicI64>,
    verdict: Arc<RwLock<CheckResult>>,
}

/// An answer to [`LOOK`].
#[derive(Clone, Copy, Debug)]
struct Look {
    now: DateTime<Utc>,
    slot: bool,
    lost: bool,
    published: bool,
}

impl ChangeCapture {
    /// Nothing is known until [`ChangeCapture::watch`] has looked.
    pub fn new(config: ChangeCaptureConfig) -> Self {
        let verdict = Arc::new(RwLock::new(Ok("not looked at yet".to_owned())));
        Self { config, newest: Arc::new(AtomicI64::new(i64::MIN)), verdict }
    }

    /// For `/readyz?verbose`.
    pub fn check(&self) -> CheckResult {
        self.verdict.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads heartbeats and looks every interval until `stop`. A look that fails leaves it as it was.
    ///
    /// # Errors
    /// When no Kafka client can be made.
    pub async fn watch(self, pool: PgPool, kafka: KafkaConfig, stop: CancellationToken) -> Result<(), ClientError> {
        let interval = Duration::from_millis(self.config.interval_ms);
        let mut reader = stop.child_token();
        let mut reading = self.read(&kafka, &reader)?;
        let mut since = None;
        let mut was_stalled = false;
        let mut read_anew: Option<DateTime<Utc>> = None;
        while !stop.is_cancelled() {
            match sqlx::query_as::<_, (DateTime<Utc>, bool, bool, bool)>(LOOK).fetch_one(&pool).await {
                Ok((now, slot, lost, published)) => {
                    let since = *since.get_or_insert(now);
                    let stalled = self.note(Look { now, slot, lost, published }, since);
                    if stalled && !was_stalled {
                        tracing::error!(reason = "CDC_STALLED", "{}", self.check().unwrap_or_else(|detail| detail));
                    } else if was_stalled && !stalled {
                        tracing::info!("heartbeats come through again");
                    }
                    was_stalled = stalled;
                    // A reader may hang on a topic that was deleted and made again.
                    let due = read_anew.is_none_or(|at| now - at > self.stalled_after());
                    if stalled && due {
                        read_anew = Some(now);
                        reader.cancel();
                        // It ends with the poll it is in.
                        let _ = reading.await;
                        reader = stop.child_token();
                        reading = self.read(&kafka, &reader)?;
                    }
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "change capture is not looked at");
                }
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(interval) => {}
            }
        }
        Ok(())
    }

    fn read(&self, kafka: &KafkaConfig, stop: &CancellationToken) -> Result<tokio::task::JoinHandle<()>, ClientError> {
        let newest = Arc::clone(&self.newest);
        let following = follow(kafka, TOPIC, stop.clone(), move |record| {
            if let Some(written) = written_at(&record) {
                newest.fetch_max(written.timestamp_micros(), Ordering::Relaxed);
            }
        })?;
        Ok(following.stopped)
    }

    fn stalled_after(&self) -> TimeDelta {
        TimeDelta::milliseconds(i64::try_from(self.config.stalled_after_ms).unwrap_or(i64::MAX / 1000))
    }

    /// Takes a look into account; `since` is when looking began. Returns whether nothing comes through.
    fn note(&self, look: Look, since: DateTime<Utc>) -> bool {
        let newest = self.newest.load(Ordering::Relaxed).max(since.timestamp_micros());
        let age = (look.now.timestamp_micros() - newest).max(0) / 1_000_000;
        metrics::HEARTBEAT_AGE.set(age);
        metrics::SLOT_USABLE.set(i64::from(look.slot && !look.lost));
        metrics::PUBLICATION_WHOLE.set(i64::from(look.published));
        // This service may have started long before the connector does: it gets twice the time for its first heartbeat.
        let stalled =
            age * 1000 >= self.stalled_after().num_milliseconds() && look.now - since >= self.stalled_after() * 2;
        let verdict = if stalled {
            let cause = match look {
                Look { slot: false, .. } => "the replication slot is gone",
                Look { lost: true, .. } => "the replication slot is lost",
                Look { published: false, .. } => "the publication is missing or lacks a table",
                _ => "slot and publication are there: look at Kafka, Connect and the connector",
            };
            Err(format!(
                "CDC_STALLED: nothing that was written in the last {age} s has come through to Kafka, {cause}. Orders are \
                 taken and wait"
            ))
        } else {
            Ok(format!("a heartbeat of {age} s ago has come through"))
        };
        *self.verdict.write().unwrap_or_else(PoisonError::into_inner) = verdict;
        stalled
    }
}

/// When the row was written that this heartbeat tells of; none for Debezium's other heartbeats, which do not come from
/// the database.
fn written_at(record: &Record) -> Option<DateTime<Utc>> {
    let value: Value = serde_json::from_slice(record.payload.as_deref()?).ok()?;
    value["after"]["at"].as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_795_278_000 + seconds, 0).expect("a time")
    }

    fn record(payload: &str) -> Record {
        Record {
            topic: TOPIC.into(),
            partition: 0,
            offset: 0,
            timestamp_ms: None,
            key: None,
            payload: Some(payload.as_bytes().to_vec()),
            headers: Vec::new(),
        }
    }

    #[test]
    fn only_a_row_of_the_database_is_a_heartbeat() {
        let row = r#"{"before":null,"after":{"at":"2026-11-21T16:27:47.154556Z"},"op":"c","ts_ms":1795278467250}"#;
        assert_eq!(written_at(&record(row)).expect("a time").timestamp_micros(), 1_795_278_467_154_556);
        assert_eq!(written_at(&record(r#"{"ts_ms":1795278467139}"#)), None);
        assert_eq!(written_at(&record("")), None);
    }

    #[test]
    fn it_is_stalled_when_no_heartbeat_of_the_last_half_minute_has_come_and_the_cause_is_told() {
        let capture = ChangeCapture::new(ChangeCaptureConfig { interval_ms: 1000, stalled_after_ms: 30_000 });
        let look = |seconds, slot, lost, published| Look { now: at(seconds), slot, lost, published };
        assert!(!capture.note(look(59, true, false, true), at(0)), "it has just begun to look");
        assert!(capture.note(look(60, true, false, true), at(0)));
        capture.newest.store(at(45).timestamp_micros(), Ordering::Relaxed);
        assert!(!capture.note(look(74, true, false, true), at(0)));
        assert_eq!(capture.check(), Ok("a heartbeat of 29 s ago has come through".to_owned()));
        for (look, cause) in [
            (look(90, false, false, true), "slot is gone"),
            (look(90, true, true, true), "slot is lost"),
            (look(90, true, false, false), "publication is missing"),
            (look(90, true, false, true), "look at Kafka"),
        ] {
            assert!(capture.note(look, at(0)));
            let told = capture.check().expect_err("it is stalled");
            assert!(told.starts_with("CDC_STALLED: nothing that was written in the last 45 s"), "{told}");
            assert!(told.contains(cause), "{told}");
        }
    }
}
