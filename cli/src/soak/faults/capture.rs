//! What change capture stands on is lost: the slot, Connect's offsets, a topic.

use std::time::{Duration, Instant};

use anyhow::ensure;
use messaging::admin;
use sqlx::Connection as _;
use stack::Repository;
use stack::provision::{Names, slot};
use stack::repair::{self, Part, Target};

use super::Injected;
use crate::soak::stand::{Stand, until};

/// How long a slot is missing before somebody repairs it.
const HELD: Duration = Duration::from_secs(5);
/// A topic that is gone is made again by the supervisor within 15 s of two looks at it.
const PATIENCE: Duration = Duration::from_secs(90);
const LET_GO: &str =
    "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1 AND active";
const DROP: &str =
    "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1 AND NOT active";
/// One of each kind: the trigger, a command, replies, an end event.
const TOPICS: [&str; 5] =
    ["order.created", "payment.requested", "inventory.reserved", "shipping.scheduled", "order.completed"];

/// Drops the slot under Debezium's hands, and repairs it as `symphony repair slot` does.
pub(super) async fn drop_slot(stand: &Stand) -> anyhow::Result<Injected> {
    let names = Names::default();
    let mut connection = stand.database("orders").await?;
    let since = Instant::now();
    while slot::find(&stand.endpoints, &names).await?.is_some() {
        ensure!(since.elapsed() < PATIENCE, "Debezium did not let go of the slot");
        // Debezium comes back at once: whoever is faster has it.
        sqlx::query(LET_GO).bind(&names.slot).execute(&mut connection).await?;
        let _ = sqlx::query(DROP).bind(&names.slot).execute(&mut connection).await;
    }
    connection.close().await?;
    tokio::time::sleep(HELD).await;
    ensure!(slot::find(&stand.endpoints, &names).await?.is_none(), "somebody made the slot again in silence");
    let done = mend(stand, Part::Slot).await?;
    let proof = format!("gone for {} s; {done}", HELD.as_secs());
    Ok(Injected { target: names.slot, proof, from: Instant::now() })
}

/// Deletes the topic in which Connect keeps its offsets; the supervisor makes it again.
pub(super) async fn delete_offsets(stand: &Stand) -> anyhow::Result<Injected> {
    delete(stand, "connect.offsets").await
}

/// Deletes a topic of the saga with all that is on it; the supervisor makes it again and has its orders published again.
pub(super) async fn delete_topic(stand: &Stand, draw: u64) -> anyhow::Result<Injected> {
    delete(stand, TOPICS[(draw % TOPICS.len() as u64) as usize]).await
}

async fn delete(stand: &Stand, topic: &'static str) -> anyhow::Result<Injected> {
    let kafka = stand.endpoints.kafka();
    admin::delete_topics(&kafka, &[topic]).await?;
    let is_there = async || admin::list_topics(&kafka).await.ok().map(|topics| topics.contains_key(topic));
    until("the topic to be gone", PATIENCE, async || is_there().await.filter(|there| !there)).await?;
    let since = Instant::now();
    until("the topic to be made again", PATIENCE, async || is_there().await.filter(|there| *there)).await?;
    let proof = format!("gone for {:.0} s, then made again by the supervisor", since.elapsed().as_secs_f64());
    Ok(Injected { target: topic.into(), proof, from: Instant::now() })
}

/// Mends what may still be missing, which does nothing if nothing is.
pub(super) async fn mend_all(stand: &Stand) -> anyhow::Result<()> {
    for part in [Part::Topics, Part::Slot, Part::Connector] {
        mend(stand, part).await?;
    }
    Ok(())
}

async fn mend(stand: &Stand, part: Part) -> anyhow::Result<String> {
    let target =
        Target { endpoints: stand.endpoints.clone(), repository: Repository::find()?, names: Names::default() };
    let mut done = Vec::new();
    repair::mend(&target, part, &mut |line| done.push(line.to_owned())).await?;
    Ok(done.join("; "))
}
