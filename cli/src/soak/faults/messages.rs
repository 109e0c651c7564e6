//! Faults of single messages, announced on `chaos.faults`.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use chrono::{TimeDelta, Utc};
use messaging::{Record, admin};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Injected;
use crate::soak::kinds::Message;
use crate::soak::stand::Stand;

const TOPIC: &str = "chaos.faults";
/// How long a fault is in force at least.
const HELD: Duration = Duration::from_secs(10);
/// It is taken back after this time at the latest, whether it has hit or not.
const LONGEST: Duration = Duration::from_secs(30);

/// Announces a fault, waits until it has hit, and takes it back.
pub(super) async fn announce(stand: &Stand, message: Message, draw: u64) -> anyhow::Result<Injected> {
    let (service, topic, fault, percentage) = choose(message, draw);
    let id = Uuid::new_v4();
    let mut target = json!({ "service": service });
    if let Some(topic) = topic {
        target["topic"] = topic.into();
    }
    let record = json!({
        "id": id,
        "target": target,
        "fault": fault,
        "blastRadius": { "percentage": percentage },
        "seed": draw,
        "expiresAt": Utc::now() + TimeDelta::seconds(60),
    });
    publish(stand, id, Some(record.to_string().into_bytes())).await?;
    let asked = if service == "*" { "orchestrator" } else { service };
    let since = Instant::now();
    let mut hits = 0;
    // A service that is killed meanwhile counts from 0 again.
    while since.elapsed() < HELD || (hits == 0 && since.elapsed() < LONGEST) {
        tokio::time::sleep(Duration::from_millis(500)).await;
        hits = hits.max(injected(&stand.metrics(asked).await, id));
    }
    let held = since.elapsed().as_secs_f64();
    publish(stand, id, None).await?;
    if hits == 0 {
        bail!("{fault} at {service} hit nothing in {held:.0} s");
    }
    let target = topic.map_or_else(|| service.to_owned(), |topic| format!("{service} {topic}"));
    Ok(Injected { target, proof: format!("{fault}: {hits} messages hit in {held:.0} s"), from: Instant::now() })
}

/// Whom a fault hits, where, what it is, and the share of messages. All of them are aimed where somebody asks again: an
/// end event that only one service lost would come again only from an operator, out of the dead letters.
fn choose(message: Message, draw: u64) -> (&'static str, Option<&'static str>, Value, u32) {
    let participants = [
        ("payment-svc", Some("payment.requested")),
        ("inventory-svc", Some("inventory.requested")),
        ("shipping-svc", Some("shipping.requested")),
    ];
    let (service, topic) = participants[(draw % 3) as usize];
    let is_second = draw / 3 % 2 == 1;
    match message {
        Message::Latency => (service, None, json!({ "type": "latency", "duration": "300ms", "jitter": "100ms" }), 20),
        Message::Error if is_second => (service, topic, json!({ "type": "error", "kind": "permanent" }), 2),
        Message::Error => (service, None, json!({ "type": "error", "kind": "transient", "attempts": 2 }), 10),
        Message::Drop if is_second => {
            let replies = ["payment.successful", "inventory.reserved", "shipping.scheduled"];
            ("orchestrator", Some(replies[(draw % 3) as usize]), json!({ "type": "drop-message" }), 10)
        }
        Message::Drop => (service, topic, json!({ "type": "drop-message" }), 10),
        Message::DropReply if is_second => ("orchestrator", topic, json!({ "type": "drop-reply" }), 10),
        Message::DropReply => (service, None, json!({ "type": "drop-reply" }), 10),
        Message::Duplicate => ("*", None, json!({ "type": "duplicate", "copies": 2 }), 50),
        Message::Reorder => ("*", None, json!({ "type": "reorder" }), 20),
        Message::Corrupt => {
            let part = ["payload", "header", "key"][(draw / 3 % 3) as usize];
            (service, topic, json!({ "type": "corrupt", "part": part }), 5)
        }
        Message::PauseConsumer => (service, None, json!({ "type": "pause-consumer" }), 100),
        Message::SlowConsumer => (service, None, json!({ "type": "slow-consumer", "perMessage": "20ms" }), 100),
    }
}

/// Sends until the broker has it: it may be dead just now.
async fn publish(stand: &Stand, id: Uuid, payload: Option<Vec<u8>>) -> anyhow::Result<()> {
    let record = Record::unsent(TOPIC, Some(id.to_string().into_bytes()), payload);
    let start = Instant::now();
    loop {
        match admin::produce(&stand.endpoints.kafka(), TOPIC, std::slice::from_ref(&record)).await {
            Err(_) if start.elapsed() < LONGEST => tokio::time::sleep(Duration::from_millis(500)).await,
            done => return done.context("announcing a fault"),
        }
    }
}

/// How often the fault has hit, by the metrics of all instances.
fn injected(metrics: &[String], fault: Uuid) -> u64 {
    let id = fault.to_string();
    let lines = metrics.iter().flat_map(|text| text.lines());
    let ours = lines.filter(|line| line.starts_with("chaos_injections_total{") && line.contains(&id));
    ours.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}
