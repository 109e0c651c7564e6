//! Watches the outbox connector: Connect leaves a failed task dead, forgets a connector when its topics are lost,
//! and says RUNNING of one that moves nothing.

use std::time::{Duration, Instant};

use super::Report;
use super::service::Surroundings;
use crate::Error;
use crate::provision::connector::Status;
use crate::provision::slot::{self, Slot};
use crate::provision::{Names, OutboxConnector};

const INTERVAL: Duration = Duration::from_secs(5);
/// Debezium writes a heartbeat through the whole path every 10 seconds: a slot that confirms nothing for so long
/// is stuck, whatever the status says.
const STUCK_AFTER: Duration = Duration::from_secs(60);

struct Watch<'a> {
    around: &'a Surroundings,
    connector: OutboxConnector,
    names: Names,
    confirmed: Option<String>,
    moved: Instant,
    said_lost: bool,
    /// Whether Connect did not know the connector at the last look.
    absent: bool,
}

/// Looks after the connector until it is dropped.
pub(super) async fn watch(around: &Surroundings) -> Result<(), Error> {
    let names = Names::default();
    let connector = OutboxConnector::load(&around.repository, &around.endpoints, &names)?;
    let mut watch =
        Watch { around, connector, names, confirmed: None, moved: Instant::now(), said_lost: false, absent: false };
    loop {
        tokio::time::sleep(INTERVAL).await;
        // A server that is down is its keeper's business; the clock starts when it is back.
        if watch.look().await.is_err() {
            watch.moved = Instant::now();
        }
    }
}

impl Watch<'_> {
    fn report(&self) -> &Report {
        &self.around.report
    }

    async fn look(&mut self) -> Result<(), Error> {
        match self.connector.status().await? {
            Status::Failed { reason } => {
                self.report().say(&format!("the outbox connector failed ({reason}), it is restarted"));
                self.connector.restart().await?;
            }
            // A worker that has just started has not read its topics yet.
            Status::Absent if !self.absent => self.absent = true,
            Status::Absent => {
                self.report().say("Connect lost the outbox connector, it is made again");
                self.connector.apply(false).await?;
            }
            Status::Running | Status::Other(_) => self.absent = false,
        }
        match slot::find(&self.around.endpoints, &self.names).await? {
            Some(slot) => self.judge(slot).await,
            None => {
                // Debezium makes a missing slot itself when it starts; what happened in between is not in it.
                self.report().say("the outbox's replication slot is gone; order-api publishes open orders again");
                Ok(())
            }
        }
    }

    async fn judge(&mut self, slot: Slot) -> Result<(), Error> {
        if slot.lost {
            if !self.said_lost {
                self.report().say("the outbox's replication slot is lost: see symphony doctor");
            }
            self.said_lost = true;
            return Ok(());
        }
        if slot.confirmed != self.confirmed {
            self.confirmed = slot.confirmed;
            self.moved = Instant::now();
        } else if self.moved.elapsed() > STUCK_AFTER {
            self.moved = Instant::now();
            self.report().say("the outbox connector has confirmed nothing for a minute, it is restarted");
            self.connector.restart_all().await?;
        }
        Ok(())
    }
}
