//! What Kafka holds from after the point.

use messaging::admin;
use orders::topics::{ALL, ORDER_CREATED};
use tokio::task::JoinSet;

use super::Target;

/// The group of dlq-admin, which reads all dead letters.
const INDEXER: &str = "dlq-admin";
/// Requests at a time.
const AT_ONCE: usize = 8;

/// Deletes the records of every saga topic but `order.created`; returns how many there were. Committed offsets stay: none
/// is before what is left, which is nothing.
pub(super) async fn discard(target: &Target) -> anyhow::Result<i64> {
    let mut open = JoinSet::new();
    let mut discarded = 0;
    for topic in ALL.iter().filter(|topic| **topic != ORDER_CREATED) {
        let topic = target.topic(topic.name);
        for (partition, (first, next)) in (0..).zip(admin::offsets(&target.kafka, &topic).await?) {
            if first == next {
                continue;
            }
            discarded += next - first;
            if open.len() == AT_ONCE {
                finish(&mut open).await?;
            }
            let (broker, topic) = (target.kafka.clone(), topic.clone());
            open.spawn(async move { admin::delete_records(&broker, &topic, partition, next).await });
        }
    }
    while !open.is_empty() {
        finish(&mut open).await?;
    }
    Ok(discarded)
}

async fn finish(open: &mut JoinSet<Result<(), admin::AdminError>>) -> anyhow::Result<()> {
    if let Some(done) = open.join_next().await {
        done??;
    }
    Ok(())
}

/// Has dlq-admin read all dead letters again: its index knows only those of before the point. A letter that it knows is
/// the same letter.
pub(super) async fn index_again(target: &Target) -> anyhow::Result<()> {
    let letters = admin::list_topics(&target.kafka).await?.into_keys();
    let letters: Vec<String> =
        letters.filter(|name| name.starts_with(&target.topic_prefix) && name.ends_with(".dlq")).collect();
    if !letters.is_empty() {
        admin::rewind_group(&target.kafka, &target.topic(INDEXER), &letters).await?;
    }
    Ok(())
}
