//! What is wrong.

use std::time::Duration;

use messaging::admin::{TopicSpec, stranded_groups};

use super::{Finding, Part, Target};
use crate::Error;
use crate::provision::connector::Status;
use crate::provision::{OutboxConnector, publication, refill, slot, topics};

/// An order that changed within this time may be on its way; order-api looks at those that are older.
const SETTLING: Duration = Duration::from_secs(120);

/// Looks at `part`, or rather at everything that it consists of.
///
/// # Errors
/// When a server cannot be asked.
pub async fn look(target: &Target, part: Part) -> Result<Vec<Finding>, Error> {
    match part {
        Part::Topics => topics(target).await,
        Part::Publication => publication(target).await,
        Part::Slot => slot(target).await,
        Part::Connector => connector(target).await,
        Part::Groups => groups(target).await,
        Part::Orders => orders(target).await,
    }
}

fn finding(part: Part, problem: impl Into<String>, repair: impl Into<String>) -> Finding {
    Finding { part, problem: problem.into(), repair: Some(repair.into()) }
}

/// The topics that there should be: those that are declared, and Connect's.
pub(super) fn expected(target: &Target) -> Result<Vec<TopicSpec>, Error> {
    let mut expected = topics::declared(&target.repository.topics(), &target.names.topic_prefix)?;
    expected.extend(topics::of_connect());
    Ok(expected)
}

async fn topics(target: &Target) -> Result<Vec<Finding>, Error> {
    let lacking = topics::lacking(&target.endpoints, &expected(target)?).await?;
    let mut findings = Vec::new();
    if !lacking.missing.is_empty() {
        let names: Vec<_> = lacking.missing.iter().map(|topic| topic.name.as_str()).collect();
        let problem = format!("not on the broker, with all that was on them: {}", names.join(", "));
        let repair = "makes them as declared, and publishes again every order that has not ended everywhere";
        findings.push(finding(Part::Topics, problem, repair));
    }
    for (topic, partitions) in lacking.repartitioned {
        let problem = format!(
            "{}: a key may be on another partition than in the other topics. Stop the services, delete the topic, and \
             repair again",
            topics::repartitioned(&topic, partitions)
        );
        findings.push(Finding { part: Part::Topics, problem, repair: None });
    }
    Ok(findings)
}

async fn publication(target: &Target) -> Result<Vec<Finding>, Error> {
    if publication::is_whole(&target.endpoints, &target.names).await? {
        return Ok(Vec::new());
    }
    let problem = "orders_outbox is missing or lacks something: PostgreSQL passes over what is written to the outbox";
    let repair = "makes it as in the migration, and publishes again every order that has not ended everywhere";
    Ok(vec![finding(Part::Publication, problem, repair)])
}

async fn slot(target: &Target) -> Result<Vec<Finding>, Error> {
    let name = &target.names.slot;
    let problem = match slot::find(&target.endpoints, &target.names).await? {
        None => format!("{name} is gone: nothing of the outbox is published"),
        Some(slot) if slot.lost => format!("{name} is lost: PostgreSQL dropped log that was not read"),
        Some(_) => return Ok(Vec::new()),
    };
    let repair = "stops the connector and makes it forget its offsets, makes a new slot, starts the connector, and \
                  publishes again every order that has not ended everywhere";
    Ok(vec![finding(Part::Slot, problem, repair)])
}

async fn connector(target: &Target) -> Result<Vec<Finding>, Error> {
    let connector = OutboxConnector::load(&target.repository, &target.endpoints, &target.names)?;
    let mut findings = Vec::new();
    let mut found = |problem: String, repair: &str| findings.push(finding(Part::Connector, problem, repair));
    match connector.status().await? {
        Status::Absent => found("Connect does not know it".into(), "makes it as in debezium/orders-outbox.json"),
        Status::Failed { reason } => found(format!("failed: {reason}"), "restarts it"),
        Status::Other(word) => found(format!("Connect says {word}"), "resumes it and waits until it runs"),
        Status::Running => match slot::find(&target.endpoints, &target.names).await? {
            Some(slot) if !slot.active && !slot.lost => {
                found("Connect says RUNNING, and nobody reads from the slot".into(), "restarts it");
            }
            _ => {}
        },
    }
    let drift = connector.drift().await?;
    if !drift.is_empty() {
        let problem = format!("set otherwise than in debezium/orders-outbox.json: {}", drift.join(", "));
        found(problem, "sets it as in the file");
    }
    Ok(findings)
}

async fn groups(target: &Target) -> Result<Vec<Finding>, Error> {
    let stranded = stranded(target).await?;
    let describe = |one: &messaging::admin::Stranded| {
        let problem = format!(
            "{} goes on at {} of {}/{}, which ends at {}: what arrives before that would be passed over",
            one.group, one.committed, one.topic, one.partition, one.end
        );
        finding(Part::Groups, problem, "sets the group back to the beginning of that topic")
    };
    Ok(stranded.iter().map(describe).collect())
}

/// Groups without members whose offsets are behind the end. Those with members have noticed.
pub(super) async fn stranded(target: &Target) -> Result<Vec<messaging::admin::Stranded>, Error> {
    let declared = topics::declared(&target.repository.topics(), &target.names.topic_prefix)?;
    let there = topics::lacking(&target.endpoints, &declared).await?.missing;
    let names: Vec<String> =
        declared.into_iter().filter(|topic| !there.contains(topic)).map(|topic| topic.name).collect();
    let stranded = stranded_groups(&target.endpoints.kafka(), &names).await;
    let mut stranded = stranded.map_err(topics::failed("reading the offsets of the consumer groups"))?;
    stranded.retain(|one| !one.in_use);
    Ok(stranded)
}

async fn orders(target: &Target) -> Result<Vec<Finding>, Error> {
    let unfinished = refill::unfinished(&target.endpoints, &target.names, SETTLING).await?;
    if unfinished.is_empty() {
        return Ok(Vec::new());
    }
    let (open, unheard) = (unfinished.open.len(), unfinished.unheard.len());
    let problem = format!(
        "{open} open for 2 minutes or PARKED, {unheard} ended 2 minutes ago with stock still set aside or nobody told"
    );
    let repair = "publishes them again, which changes nothing for those that have lost nothing";
    Ok(vec![finding(Part::Orders, problem, repair)])
}
