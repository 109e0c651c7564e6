//! Watches the outbox connector and what it depends on: Connect leaves a failed task dead, forgets a connector when its
//! topics are lost, and says RUNNING of one that moves nothing; a slot, a publication or a topic may be gone.
//!
//! What it can put right without hiding a loss, it does, and says so: a task, a connector, its settings, a topic. The
//! rest waits for `symphony repair`, which every alarm names.
//!
//! A missing slot is never made in the middle of a run. Debezium 3.7 does not make one either as long as Connect has
//! offsets: its task fails, since the log at its offset is no longer available. Without offsets it would make one and
//! say nothing, so a connector that Connect has forgotten is not made again without a slot. The next `up` makes the slot
//! and says so.

pub(super) mod alarms;

use std::sync::Arc;
use std::time::{Duration, Instant};

use messaging::admin::TopicSpec;
use tokio::task::JoinHandle;

use self::alarms::Alarms;
use super::service::Surroundings;
use super::state::Board;
use crate::Error;
use crate::provision::connector::Status;
use crate::provision::owed::{self, Owed};
use crate::provision::slot::{self, Slot};
use crate::provision::{Names, OutboxConnector, publication, topics};
use crate::repair::{self, Target};

const INTERVAL: Duration = Duration::from_secs(5);
/// Topics and the connector's settings are looked at once in so many looks: asking for topics takes a client of its own.
/// So a topic that is missing twice is missing for longer than clients need to notice (10 s); until then they would go
/// on in a new one where they stopped in the old one.
const LOOKS_FOR_TOPICS: u32 = 3;
/// Debezium writes a heartbeat through the whole path every 10 seconds: a slot that confirms nothing for so long
/// is stuck, whatever the status says.
const STUCK_AFTER: Duration = Duration::from_secs(60);
/// The variable that sets how many megabytes of log the slot may hold back before it is an alarm.
const LAG_VARIABLE: &str = "SYMPHONY_SLOT_LAG_MB";
/// Its default: an eighth of `max_slot_wal_keep_size`, at which the slot is lost.
const LAG_MB: u64 = 1024;

const SLOT_GONE: &str = "replication-slot-gone";
pub(super) const SLOT_LOST: &str = "replication-slot-lost";
const SLOT_LAG: &str = "replication-slot-lag";
/// Raised by the start.
pub(super) const SLOT_REPLACED: &str = "replication-slot-replaced";
const PUBLICATION_MISSING: &str = "publication-missing";
const TOPICS_MISSING: &str = "topics-missing";
const TOPICS_REPARTITIONED: &str = "topics-repartitioned";
const CONNECTOR_FAILED: &str = "connector-failed";
const CONNECTOR_STUCK: &str = "connector-stuck";
const CONNECTOR_PAUSED: &str = "connector-paused";
const CDC_STALLED: &str = "cdc-stalled";
/// The dependency of order-api that measures the age of the last heartbeat.
const CHANGE_CAPTURE: &str = "change capture";

struct Watch<'a> {
    around: &'a Surroundings,
    alarms: Alarms,
    connector: OutboxConnector,
    names: Names,
    topics: Vec<TopicSpec>,
    /// Those that were missing at the last look.
    missing: Vec<TopicSpec>,
    /// Refills that were owed at the last look.
    owed: Owed,
    /// Makes topics, or publishes again.
    mending: Option<JoinHandle<()>>,
    http: reqwest::Client,
    /// Bytes of log that the slot may hold back.
    lag_limit: u64,
    looks: u32,
    confirmed: Option<String>,
    moved: Instant,
    /// What Connect said of the connector at the last look.
    status: Option<Status>,
}

/// Looks after the connector until it is dropped.
pub(super) async fn watch(around: &Surroundings, board: &Arc<Board>) -> Result<(), Error> {
    let names = Names::default();
    let mut expected = topics::declared(&around.repository.topics(), &names.topic_prefix)?;
    expected.extend(topics::of_connect());
    let mut watch = Watch {
        around,
        alarms: Alarms::new(&around.report, board),
        connector: OutboxConnector::load(&around.repository, &around.endpoints, &names)?,
        names,
        topics: expected,
        missing: Vec::new(),
        owed: Owed::new(),
        mending: None,
        http: reqwest::Client::new(),
        lag_limit: lag_limit()?,
        looks: 0,
        confirmed: None,
        moved: Instant::now(),
        status: None,
    };
    loop {
        tokio::time::sleep(INTERVAL).await;
        watch.look().await;
    }
}

/// How many bytes of log the slot may hold back, as the environment says or by default.
pub(super) fn lag_limit() -> Result<u64, Error> {
    parse_lag_limit(std::env::var(LAG_VARIABLE).ok().as_deref())
}

/// What a lost slot means and how it is replaced.
pub(super) fn lost_slot(names: &Names) -> String {
    format!(
        "PostgreSQL dropped log that was not read, nothing of the outbox is published. `symphony repair slot` replaces it \
         and publishes open orders again (by hand: SELECT pg_drop_replication_slot('{}') in database {}, then `symphony \
         down` and `symphony up`)",
        names.slot,
        names.orders_database()
    )
}

/// What is wrong with topics that have another number of partitions than is declared; `None` if there is none.
fn repartitioned(topics: &[(TopicSpec, usize)]) -> Option<String> {
    let described: Vec<String> =
        topics.iter().map(|(topic, partitions)| topics::repartitioned(topic, *partitions)).collect();
    (!topics.is_empty()).then(|| {
        format!(
            "{}. A key may be on another partition than in the other topics, and a saga in the hands of two replicas. \
             `symphony repair` says what to do",
            described.join(", ")
        )
    })
}

fn parse_lag_limit(megabytes: Option<&str>) -> Result<u64, Error> {
    let megabytes = match megabytes.map(str::trim).filter(|text| !text.is_empty()) {
        None => LAG_MB,
        Some(text) => text
            .parse()
            .ok()
            .filter(|megabytes| *megabytes > 0)
            .ok_or_else(|| Error::Other(format!("{LAG_VARIABLE} is {text:?}: it must be a number of megabytes")))?,
    };
    Ok(megabytes.saturating_mul(1 << 20))
}

impl Watch<'_> {
    /// One look. A server that is down is its keeper's business: what it would have told stays as it was.
    async fn look(&mut self) {
        let thorough = self.looks.is_multiple_of(LOOKS_FOR_TOPICS);
        self.looks = self.looks.wrapping_add(1);
        if thorough {
            self.look_at_topics().await;
        }
        let looked = async {
            let slot = self.look_at_database().await?;
            self.look_at_connector(slot, thorough).await
        };
        if looked.await.is_err() {
            // The clock starts when it is back.
            self.moved = Instant::now();
        }
        self.look_at_heartbeat().await;
    }

    async fn look_at_topics(&mut self) {
        let Ok(lacking) = topics::lacking(&self.around.endpoints, &self.topics).await else { return };
        self.alarms.set(TOPICS_REPARTITIONED, repartitioned(&lacking.repartitioned));
        let was_missing = std::mem::replace(&mut self.missing, lacking.missing);
        let names: Vec<&str> = self.missing.iter().map(|topic| topic.name.as_str()).collect();
        let reason = (!names.is_empty()).then(|| {
            format!(
                "{} not on the broker: what was on them is lost, and what belongs there waits. They are made again in \
                 {} s, when every client has noticed, and open orders published again; `symphony repair topics` does the \
                 same",
                names.join(", "),
                INTERVAL.as_secs() * u64::from(LOOKS_FOR_TOPICS)
            )
        });
        self.alarms.set(TOPICS_MISSING, reason);
        let lost: Vec<TopicSpec> = self.missing.iter().filter(|topic| was_missing.contains(topic)).cloned().collect();
        let is_owed = self.look_at_owed().await;
        if (is_owed || !lost.is_empty()) && self.mending.as_ref().is_none_or(JoinHandle::is_finished) {
            self.mend(lost);
        }
    }

    /// Whether the same refill was owed at the last look: whoever owed it was ended, or has failed.
    async fn look_at_owed(&mut self) -> bool {
        // With the database away nobody can publish anything.
        let owed = owed::find(&self.around.endpoints, &self.names).await.unwrap_or_default();
        let was_owed = std::mem::replace(&mut self.owed, owed);
        !self.owed.is_empty() && self.owed == was_owed
    }

    /// Makes `lost` again, and publishes what is owed. Beside the looks: it may take long to find all orders that need it.
    fn mend(&mut self, lost: Vec<TopicSpec>) {
        if !lost.is_empty() {
            // Looked at anew before it is mended again.
            self.missing.clear();
        }
        let target = Target {
            endpoints: self.around.endpoints.clone(),
            repository: self.around.repository.clone(),
            names: self.names.clone(),
        };
        let report = self.around.report.clone();
        self.mending = Some(tokio::spawn(async move {
            let mut say = |line: &str| report.say(line);
            let mended = if lost.is_empty() {
                repair::refill_owed(&target, &mut say).await
            } else {
                repair::make_topics(&target, &lost, &mut say).await
            };
            if let Err(error) = mended {
                report.say(&format!("mending what was lost failed, it is tried again: {}", error.chain()));
            }
        }));
    }

    /// A connector that runs is no proof: order-api measures what comes out at the other end.
    async fn look_at_heartbeat(&self) {
        let state = self.alarms.state();
        let replicas = state.components.iter().filter(|found| found.name == "order-api" && found.pid.is_some());
        let mut report = None;
        // All of them measure the same; the first may be one that somebody has stopped.
        for replica in replicas {
            let request = self.http.get(format!("{}/readyz?verbose", replica.url)).timeout(Duration::from_secs(2));
            let Ok(answer) = request.send().await else { continue };
            if let Ok(answer) = answer.json::<serde_json::Value>().await {
                report = Some(answer);
                break;
            }
        }
        // While none answers, nobody knows.
        let Some(report) = report else { return };
        let mut dependencies = report["dependencies"].as_array().into_iter().flatten();
        let Some(found) = dependencies.find(|found| found["name"] == CHANGE_CAPTURE) else { return };
        let stalled = (found["state"] == "down").then(|| {
            format!(
                "{}. `symphony repair` says what is wrong",
                found["detail"].as_str().unwrap_or("it says nothing more")
            )
        });
        self.alarms.set(CDC_STALLED, stalled);
    }

    async fn look_at_database(&self) -> Result<Option<Slot>, Error> {
        let slot = slot::find(&self.around.endpoints, &self.names).await?;
        let gone = slot.is_none().then(|| {
            "nothing of the outbox is published. `symphony repair slot` makes a new one and publishes open orders again"
                .to_owned()
        });
        self.alarms.set(SLOT_GONE, gone);
        let lost = slot.as_ref().is_some_and(|slot| slot.lost).then(|| lost_slot(&self.names));
        self.alarms.set(SLOT_LOST, lost);
        self.alarms.set(SLOT_LAG, slot.as_ref().and_then(|slot| self.lag(slot)));

        let whole = publication::is_whole(&self.around.endpoints, &self.names).await?;
        let missing = (!whole).then(|| {
            "PostgreSQL passes over what is written to the outbox meanwhile, and the connector goes on as if nothing were. \
             `symphony repair publication` makes orders_outbox as in migrations/orders/0002_publication.sql and publishes \
             open orders again"
                .to_owned()
        });
        self.alarms.set(PUBLICATION_MISSING, missing);
        Ok(slot)
    }

    /// Why the slot is too far behind. An alarm ends at three quarters of the limit, so it does not flutter.
    fn lag(&self, slot: &Slot) -> Option<String> {
        let raised = self.alarms.is_raised(SLOT_LAG);
        let limit = if raised { self.lag_limit / 4 * 3 } else { self.lag_limit };
        (slot.retained_bytes > limit).then(|| {
            format!(
                "{} MB of log wait to be read: at {} MB the slot is lost. Orders are taken and not published. Is Connect \
                 up (`symphony status`), does the connector run (`symphony repair`)?",
                slot.retained_bytes >> 20,
                slot.keep_bytes.map_or_else(|| "no number of".into(), |keep| (keep >> 20).to_string()),
            )
        })
    }

    async fn look_at_connector(&mut self, slot: Option<Slot>, thorough: bool) -> Result<(), Error> {
        let slot = slot.filter(|slot| !slot.lost);
        let status = self.connector.status().await?;
        let before = self.status.replace(status.clone());
        if thorough {
            self.look_at_settings().await?;
        }
        let is_paused =
            |status: &Status| matches!(status, Status::Other(word) if word == "PAUSED" || word == "STOPPED");
        // Twice: it is stopped for a moment while the slot is replaced.
        let paused = is_paused(&status) && before.as_ref() == Some(&status);
        let reason = "somebody has paused the connector: orders are taken and not published. `symphony repair connector` \
                      lets it go on";
        self.alarms.set(CONNECTOR_PAUSED, paused.then(|| reason.to_owned()));
        match status {
            Status::Failed { reason } => {
                self.alarms.set(CONNECTOR_FAILED, Some(format!("{reason}; it is restarted until it runs")));
                if slot.is_some() {
                    self.connector.restart().await?;
                }
            }
            // A worker that has just started has not read its topics yet. Without a slot it waits for one: with its
            // topics the offsets are lost, and Debezium would make a slot and say nothing of what is between.
            Status::Absent if before == Some(Status::Absent) && slot.is_some() => {
                self.around.report.say("Connect lost the outbox connector, it is made again");
                self.connector.apply(false).await?;
            }
            Status::Running if slot.as_ref().is_some_and(|slot| slot.active) => {
                self.alarms.set(CONNECTOR_FAILED, None);
            }
            Status::Absent | Status::Running | Status::Other(_) => {}
        }
        match slot {
            Some(slot) => self.judge(slot).await,
            None => Ok(()),
        }
    }

    /// Settings that somebody has changed are set back: the file in the repository is what counts.
    async fn look_at_settings(&self) -> Result<(), Error> {
        let drift = self.connector.drift().await?;
        if !drift.is_empty() {
            let names = drift.join(", ");
            self.around
                .report
                .say(&format!("the outbox connector is set otherwise than declared, it is set back: {names}"));
            self.connector.apply(false).await?;
        }
        Ok(())
    }

    async fn judge(&mut self, slot: Slot) -> Result<(), Error> {
        if slot.confirmed != self.confirmed {
            self.confirmed = slot.confirmed;
            self.moved = Instant::now();
            self.alarms.set(CONNECTOR_STUCK, None);
        } else if self.moved.elapsed() > STUCK_AFTER {
            self.moved = Instant::now();
            let reason = "the outbox connector has confirmed nothing for a minute; it is restarted until it does";
            self.alarms.set(CONNECTOR_STUCK, Some(reason.into()));
            self.connector.restart_all().await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_with_another_number_of_partitions_are_named_with_both_numbers() {
        assert_eq!(repartitioned(&[]), None);
        let topic = TopicSpec { name: "order.created".into(), partitions: 4, replication: 1, config: [].into() };
        let told = repartitioned(&[(topic, 6)]).expect("an alarm");
        assert!(told.starts_with("order.created has 6 partitions and is declared with 4. "), "{told}");
    }

    #[test]
    fn the_limit_of_the_lag_is_a_number_of_megabytes() {
        assert_eq!(parse_lag_limit(None).unwrap(), 1 << 30);
        assert_eq!(parse_lag_limit(Some(" 64 ")).unwrap(), 64 << 20);
        for wrong in ["0", "-1", "1 GB"] {
            assert!(parse_lag_limit(Some(wrong)).is_err(), "{wrong}");
        }
    }
}
