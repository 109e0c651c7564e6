//! Mends what is wrong.

use std::collections::BTreeSet;
use std::time::Duration;

use messaging::admin::{TopicSpec, rewind_group};

use super::look::{expected, stranded};
use super::{Part, Target};
use crate::Error;
use crate::provision::connector::Status;
use crate::provision::owed::Owed;
use crate::provision::{OutboxConnector, owed, publication, refill, slot, topics};

/// A task takes seconds to start and to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// Clients look for their topics every 10 s. Who has not missed one yet would go on in a new one where it stopped in the
/// old one.
const NOTICED: Duration = Duration::from_secs(15);

/// Mends `part` if something is wrong with it; `say` gets a line for each thing that was done.
///
/// # Errors
/// When a server refuses. What was done so far stays, and the same again goes on from there.
pub async fn mend(target: &Target, part: Part, say: &mut (dyn FnMut(&str) + Send)) -> Result<(), Error> {
    match part {
        Part::Topics => topics(target, say).await,
        Part::Publication => publication(target, say).await,
        Part::Slot => slot(target, say).await,
        Part::Connector => connector(target, say).await,
        Part::Groups => groups(target, say).await,
        Part::Orders => publish_again(target, say).await,
    }
}

async fn topics(target: &Target, say: &mut (dyn FnMut(&str) + Send)) -> Result<(), Error> {
    let missed = topics::lacking(&target.endpoints, &expected(target)?).await?.missing;
    if !missed.is_empty() {
        say(&format!(
            "{} topics are missing; those that still are in {} s are made, when every client has noticed",
            missed.len(),
            NOTICED.as_secs()
        ));
        tokio::time::sleep(NOTICED).await;
        let missing = topics::lacking(&target.endpoints, &missed).await?.missing;
        if !missing.is_empty() {
            return make_topics(target, &missing, say).await;
        }
    }
    publish_owed(target, owed::TOPICS, say).await
}

/// Makes the topics of `missing`, which every client has missed by now, and publishes again what was lost with them.
///
/// # Errors
/// As [`mend`].
pub async fn make_topics(
    target: &Target,
    missing: &[TopicSpec],
    say: &mut (dyn FnMut(&str) + Send),
) -> Result<(), Error> {
    topics::make_again(&target.endpoints, &target.names, missing).await?;
    for topic in missing {
        say(&format!("topic {} made, with {} partitions", topic.name, topic.partitions));
    }
    publish_again(target, say).await?;
    if missing.iter().any(|topic| topics::of_connect().contains(topic)) {
        // Connect still knows what it had written there, and has to write it again.
        let connector = OutboxConnector::load(&target.repository, &target.endpoints, &target.names)?;
        if connector.status().await? != Status::Absent {
            connector.apply(false).await?;
            say("connector written again");
        }
    }
    Ok(())
}

async fn publication(target: &Target, say: &mut (dyn FnMut(&str) + Send)) -> Result<(), Error> {
    if publication::is_whole(&target.endpoints, &target.names).await? {
        return publish_owed(target, owed::PUBLICATION, say).await;
    }
    owed::owe(&target.endpoints, &target.names, owed::PUBLICATION).await?;
    publication::make(&target.endpoints, &target.names).await?;
    say("publication orders_outbox made");
    publish_again(target, say).await
}

/// Each step may be the last one: done again, it goes on from there.
async fn slot(target: &Target, say: &mut (dyn FnMut(&str) + Send)) -> Result<(), Error> {
    let (endpoints, names) = (&target.endpoints, &target.names);
    let found = slot::find(endpoints, names).await?;
    let connector = OutboxConnector::load(&target.repository, endpoints, names)?;
    if found.as_ref().is_some_and(|slot| !slot.lost) {
        // One that was ended after it had made the slot left the connector stopped, and published nothing again.
        if !owed::find(endpoints, names).await?.contains_key(owed::SLOT) {
            return Ok(());
        }
        return start(target, &connector, say).await;
    }
    // Without offsets and slot a running connector would make a slot of its own, and say nothing.
    connector.stop().await?;
    slot::until_idle(endpoints, names, PATIENCE).await?;
    connector.forget_offsets().await?;
    say("connector stopped, its offsets are forgotten");
    owed::owe(endpoints, names, owed::SLOT).await?;
    if found.is_some() {
        slot::drop(endpoints, names).await?;
        say(&format!("replication slot {} dropped", names.slot));
    }
    slot::ensure(endpoints, names).await?;
    say(&format!("replication slot {} made", names.slot));
    start(target, &connector, say).await
}

/// Starts the connector at a new slot.
async fn start(target: &Target, connector: &OutboxConnector, say: &mut (dyn FnMut(&str) + Send)) -> Result<(), Error> {
    connector.apply(false).await?;
    run(target, connector, say).await?;
    // What was committed before the new slot is not in it, and by now to be seen.
    publish_again(target, say).await
}

async fn connector(target: &Target, say: &mut (dyn FnMut(&str) + Send)) -> Result<(), Error> {
    let connector = OutboxConnector::load(&target.repository, &target.endpoints, &target.names)?;
    let slot = slot::find(&target.endpoints, &target.names).await?;
    let Some(slot) = slot.filter(|slot| !slot.lost) else {
        return Err(Error::Other("without a replication slot no connector is started: repair the slot first".into()));
    };
    let status = connector.status().await?;
    if status == Status::Running && slot.active && connector.drift().await?.is_empty() {
        return Ok(());
    }
    connector.apply(false).await?;
    if status == Status::Running && !slot.active {
        connector.restart_all().await?;
    }
    run(target, &connector, say).await
}

async fn run(target: &Target, connector: &OutboxConnector, say: &mut (dyn FnMut(&str) + Send)) -> Result<(), Error> {
    connector.resume().await?;
    connector.until_running().await?;
    slot::until_active(&target.endpoints, &target.names, PATIENCE).await?;
    say("connector runs");
    Ok(())
}

async fn groups(target: &Target, say: &mut (dyn FnMut(&str) + Send)) -> Result<(), Error> {
    let stranded: BTreeSet<(String, String)> =
        stranded(target).await?.into_iter().map(|one| (one.group, one.topic)).collect();
    for (group, topic) in stranded {
        let rewound = rewind_group(&target.endpoints.kafka(), &group, std::slice::from_ref(&topic)).await;
        rewound.map_err(topics::failed("setting a consumer group back"))?;
        say(&format!("group {group} set back to the beginning of {topic}"));
    }
    Ok(())
}

/// Publishes again what is owed, as far as that is possible now.
///
/// # Errors
/// When a database refuses. Then it is still owed.
pub async fn refill_owed(target: &Target, say: &mut (dyn FnMut(&str) + Send)) -> Result<(), Error> {
    let payable = payable(target).await?;
    if payable.is_empty() {
        return Ok(());
    }
    let parts: Vec<&str> = payable.keys().map(String::as_str).collect();
    say(&format!("what was lost with {} is published again", parts.join(" and ")));
    publish_again(target, say).await
}

/// What one that was ended after it had made `part` did not come to.
async fn publish_owed(target: &Target, part: &str, say: &mut (dyn FnMut(&str) + Send)) -> Result<(), Error> {
    let owed = owed::find(&target.endpoints, &target.names).await?;
    if owed.contains_key(part) { publish_again(target, say).await } else { Ok(()) }
}

/// What is owed and done with when orders are published again now.
async fn payable(target: &Target) -> Result<Owed, Error> {
    // Before all else: what is lost or made anew from now on is owed once more.
    let mut owed = owed::find(&target.endpoints, &target.names).await?;
    let slot = slot::find(&target.endpoints, &target.names).await?.filter(|slot| !slot.lost);
    match slot {
        Some(slot) if publication::is_whole(&target.endpoints, &target.names).await? => {
            if !slot.active {
                // Who has made a slot has to start the connector too.
                owed.remove(owed::SLOT);
            }
            Ok(owed)
        }
        // What is inserted meanwhile is never published.
        _ => Ok(Owed::new()),
    }
}

async fn publish_again(target: &Target, say: &mut (dyn FnMut(&str) + Send)) -> Result<(), Error> {
    let payable = payable(target).await?;
    let lost = refill::unfinished(&target.endpoints, &target.names, Duration::ZERO).await?;
    let published = refill::publish_again(&target.endpoints, &target.names, &lost).await?;
    let (open, unheard) = (lost.open.len(), lost.unheard.len());
    say(&format!("{published} orders published again: {open} open, {unheard} whose end somebody had not heard"));
    owed::settle(&target.endpoints, &target.names, &payable).await
}
