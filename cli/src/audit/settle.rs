//! Waiting until what was at rest has been told to everybody, and for what is late to go on.

use std::collections::HashSet;
use std::time::Instant;

use tokio::time::{Duration, sleep};
use uuid::Uuid;

use super::facts::orders::OrdersBefore;
use super::facts::sagas::SagasBefore;
use super::facts::topics::Topics;
use super::facts::{self, orders, participants};
use super::overdue::Late;
use super::{Target, overdue};

const INTERVAL: Duration = Duration::from_millis(250);

/// Waits until orders and stock know the end of every saga in `before`. What they still do not know when for
/// [`Target::settle_within`] nothing more of it has come is for the invariants to judge.
pub(super) async fn wait(target: &Target, before: &SagasBefore) -> anyhow::Result<()> {
    let mut last = Instant::now();
    let mut untold: Vec<Uuid> = before.at_rest.iter().map(|saga| saga.id).collect();
    let completed = before.at_rest.iter().filter(|saga| saga.state == "COMPLETED");
    let mut unshipped: Vec<Uuid> = completed.map(|saga| saga.id).collect();
    loop {
        let left = untold.len() + unshipped.len();
        untold = orders::pending(&mut facts::snapshot(target, "orders").await?, &untold).await?;
        unshipped = participants::reserved(&mut facts::snapshot(target, "inventory").await?, &unshipped).await?;
        if untold.len() + unshipped.len() < left {
            last = Instant::now();
        }
        if (untold.is_empty() && unshipped.is_empty()) || last.elapsed() >= target.settle_within {
            return Ok(());
        }
        sleep(INTERVAL).await;
    }
}

/// Reads the topics once every outbox row of `before` is published, or for [`Target::settle_within`] none of them was.
pub(super) async fn published(target: &Target, before: &OrdersBefore) -> anyhow::Result<Topics> {
    let mut last = Instant::now();
    let mut topics = Topics::begin(target).await?;
    let mut unpublished: HashSet<Uuid> = before.outbox.iter().copied().collect();
    loop {
        let left = unpublished.len();
        topics.read_on(target, ::orders::topics::ORDER_CREATED).await?;
        for message in topics.on(::orders::topics::ORDER_CREATED) {
            unpublished.remove(&message.id);
        }
        if unpublished.len() < left {
            last = Instant::now();
        }
        let whole = topics.is_whole(::orders::topics::ORDER_CREATED, None);
        if !whole || unpublished.is_empty() || last.elapsed() >= target.settle_within {
            return topics.finish(target).await;
        }
        sleep(INTERVAL).await;
    }
}

/// Watches what is late: takes away from `late` whatever has gone on itself, until nothing is left that has not, or
/// [`Target::settle_within`] is over. Returns how many went on.
pub(super) async fn moving(target: &Target, topics: &Topics, late: &mut Vec<Late>) -> anyhow::Result<usize> {
    let start = Instant::now();
    let found = late.len();
    loop {
        overdue::forget_moved(late, target, topics).await?;
        if late.is_empty() || start.elapsed() >= target.settle_within {
            return Ok(found - late.len());
        }
        sleep(INTERVAL).await;
    }
}
