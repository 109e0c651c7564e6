//! Starting instances at a chosen moment: faults must be in force before the saga's first message.
//!
//! Of a saga that is started by a request, the id is only known when its trigger is on its way already. So the
//! orchestrator is made to drop the triggers (the gate), and when everything is announced a copy of each is sent.

use std::time::Duration;

use anyhow::{Context, anyhow};
use chrono::Utc;
use messaging::Record;
use reqwest::Method;
use saga::Definition;
use serde_json::{Value, json};
use uuid::Uuid;

use super::chaos::Planned;
use super::samples::{Post, Sample};
use super::stage::{Stage, until};
use crate::api::problem;

/// From the request to the trigger on its topic, and to the orchestrator that drops it.
const ARRIVES_WITHIN: Duration = Duration::from_secs(30);

/// Instances that will start when they are released.
pub(super) struct Prepared {
    pub(super) sagas: Vec<Uuid>,
    triggers: Vec<Record>,
    gate: Option<Uuid>,
}

/// Prepares `count` instances of `definition`.
pub(super) async fn prepare(
    stage: &Stage,
    definition: &Definition,
    sample: &Sample,
    count: usize,
) -> anyhow::Result<Prepared> {
    let topic = &definition.trigger().topic;
    let Some(post) = &sample.start.post else {
        let value = sample.start.trigger.clone().unwrap_or_default();
        let sagas: Vec<Uuid> = (0..count).map(|_| Uuid::now_v7()).collect();
        let triggers = sagas.iter().map(|saga| trigger(definition, *saga, &value)).collect();
        return Ok(Prepared { sagas, triggers, gate: None });
    };
    let drop = Planned { topic: topic.clone(), fault: json!({ "type": "drop-message" }), first: None };
    let gates = stage.chaos.announce(None, &[drop]).await?;
    stage.chaos.settled().await?;
    let mut sagas = Vec::with_capacity(count);
    for _ in 0..count {
        sagas.push(request(stage, post).await?);
    }
    let triggers = until(ARRIVES_WITHIN, async || {
        let first = |saga: &Uuid| stage.journal.on(topic, *saga).into_iter().next();
        sagas.iter().map(first).collect::<Option<Vec<Record>>>()
    });
    let triggers = triggers.await.with_context(|| format!("not all triggers came to {topic}"))?;
    let dropped = until(ARRIVES_WITHIN, async || {
        gates.iter().all(|gate| stage.chaos.hits(*gate).0 >= count as u64).then_some(())
    });
    dropped.await.with_context(|| format!("the orchestrator has not read {count} triggers on {topic}"))?;
    Ok(Prepared { sagas, triggers, gate: gates.first().copied() })
}

/// Starts what was prepared, all at once.
pub(super) async fn release(stage: &Stage, prepared: &[Prepared]) -> anyhow::Result<()> {
    for gate in prepared.iter().filter_map(|prepared| prepared.gate) {
        stage.chaos.end(gate).await?;
    }
    stage.chaos.settled().await?;
    for trigger in prepared.iter().flat_map(|prepared| &prepared.triggers) {
        stage.producer.send(trigger).await?;
    }
    Ok(())
}

async fn request(stage: &Stage, post: &Post) -> anyhow::Result<Uuid> {
    let request = stage.stand.api.request(Method::POST, &post.service, &post.path)?;
    let response = request.timeout(Duration::from_secs(30)).json(&post.body).send().await?;
    let (status, body) = (response.status(), response.text().await?);
    if !status.is_success() {
        return Err(anyhow!("POST {} of {} answers {status}: {}", post.path, post.service, problem(&body)));
    }
    let answer: Value = serde_json::from_str(&body)?;
    let id = answer.pointer(&post.id).and_then(Value::as_str).and_then(|id| id.parse().ok());
    id.with_context(|| format!("POST {} of {}: no id at {} in {body}", post.path, post.service, post.id))
}

fn trigger(definition: &Definition, saga: Uuid, value: &Value) -> Record {
    let channel = definition.trigger();
    let headers = [
        ("ce_specversion", "1.0".to_owned()),
        ("ce_id", Uuid::new_v4().to_string()),
        ("ce_type", channel.event_type.clone()),
        ("ce_source", "/chaos-symphony/certify".to_owned()),
        ("ce_subject", saga.to_string()),
        ("ce_time", Utc::now().to_rfc3339()),
        ("content-type", "application/json".to_owned()),
    ];
    let headers = headers.map(|(name, value)| (name.to_owned(), Some(value.into_bytes()))).to_vec();
    let (key, payload) = (saga.to_string().into_bytes(), value.to_string().into_bytes());
    Record { headers, ..Record::unsent(&channel.topic, Some(key), Some(payload)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trigger_that_is_published_here_is_one_that_every_consumer_reads() {
        let file = stack::Repository::find().expect("the repository").sagas().join("order.yaml");
        let yaml = std::fs::read_to_string(file).expect("the definition");
        let definition = Definition::parse(&yaml, "order.yaml").expect("a definition");
        let saga = Uuid::now_v7();
        let record = trigger(&definition, saga, &json!({ "from": "Oslo" }));
        let envelope = messaging::Envelope::of(&record).expect("an envelope");
        assert_eq!(
            (envelope.subject, envelope.event_type),
            (saga.to_string(), definition.trigger().event_type.clone())
        );
    }
}
