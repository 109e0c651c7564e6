//! Waiting until what was at rest has been told to everybody.

use std::collections::HashSet;
use std::time::Instant;

use tokio::time::{Duration, sleep};
use uuid::Uuid;

use super::Target;
use super::facts::orders::OrdersBefore;
use super::facts::sagas::SagasBefore;
use super::facts::topics::Topics;
use super::facts::{self, orders, participants};

const INTERVAL: Duration = Duration::from_millis(250);

/// Waits until orders and stock know the end of every saga in `before`. What they still do not know when the
/// time is up is for the invariants to judge.
pub(super) async fn wait(target: &Target, before: &SagasBefore) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut untold: Vec<Uuid> = before.at_rest.iter().map(|saga| saga.id).collect();
    let completed = before.at_rest.iter().filter(|saga| saga.state == "COMPLETED");
    let mut unshipped: Vec<Uuid> = completed.map(|saga| saga.id).collect();
    loop {
        untold = orders::pending(&mut facts::snapshot(target, "orders").await?, &untold).await?;
        unshipped = participants::reserved(&mut facts::snapshot(target, "inventory").await?, &unshipped).await?;
        if (untold.is_empty() && unshipped.is_empty()) || start.elapsed() >= target.settle_within {
            return Ok(());
        }
        sleep(INTERVAL).await;
    }
}

/// Reads the topics once every outbox row of `before` is published, or the time is up.
pub(super) async fn published(target: &Target, before: &OrdersBefore) -> anyhow::Result<Topics> {
    let start = Instant::now();
    loop {
        let topics = Topics::read(target).await?;
        let seen: HashSet<Uuid> = topics.on(::orders::topics::ORDER_CREATED).iter().map(|message| message.id).collect();
        let whole = topics.is_whole(::orders::topics::ORDER_CREATED, None);
        if !whole || before.outbox.iter().all(|id| seen.contains(id)) || start.elapsed() >= target.settle_within {
            return Ok(topics);
        }
        sleep(INTERVAL).await;
    }
}
