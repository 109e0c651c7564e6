//! A participant's handler, fed as the runtime feeds it but without a broker: what it answers can be compared.

use messaging::{BatchHandler, Delivery, Envelope, HandlerError, Outgoing, Record};
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgPool};
use tokio::task::JoinSet;
use uuid::Uuid;

/// A command of the saga of `order` on `topic`; `id` makes its id from saga and step.
///
/// # Panics
/// Never: the time is well-formed.
pub fn command(
    (topic, event_type): (&str, &str),
    id: fn(Uuid, &str) -> Uuid,
    step: &str,
    order: Uuid,
    data: &Value,
) -> Outgoing {
    Outgoing {
        topic: topic.to_owned(),
        key: order.to_string(),
        id: id(order, step),
        event_type: event_type.to_owned(),
        source: "/chaos-symphony/testkit".to_owned(),
        subject: order.to_string(),
        time: "2026-11-21T10:00:00Z".parse().expect("a time"),
        saga_id: Some(order),
        definition: None,
        step: Some(step.to_owned()),
        causation_id: None,
        traceparent: None,
        payload: data.to_string().into_bytes(),
    }
}

/// Gives `messages` to `handler` as one batch, again while it says that it must be retried; returns its answers.
///
/// # Panics
/// When a message is poison.
pub async fn deliver<H: BatchHandler>(handler: &H, messages: &[Outgoing]) -> Vec<Outgoing> {
    let batch: Vec<_> =
        messages.iter().enumerate().map(|(offset, message)| delivery(handler, offset, message)).collect();
    loop {
        match handler.handle(&batch).await {
            Ok(answers) => return answers,
            Err(HandlerError::Retry(_)) => {}
            Err(HandlerError::Poison(error)) => panic!("a batch of {} is poison: {error:?}", batch.len()),
        }
    }
}

/// Gives `log` to `handler` in batches of `size`; returns its answers.
pub async fn deliver_in_batches<H: BatchHandler>(handler: &H, log: &[Outgoing], size: usize) -> Vec<Outgoing> {
    let mut answers = Vec::new();
    for batch in log.chunks(size) {
        answers.extend(deliver(handler, batch).await);
    }
    answers
}

/// Gives `log` to several replicas at the same time, to each in batches of its own size; returns the answers of each.
pub async fn deliver_to_replicas<H: BatchHandler>(replicas: Vec<(H, usize)>, log: &[Outgoing]) -> Vec<Vec<Outgoing>> {
    let mut deliveries = JoinSet::new();
    for (handler, size) in replicas {
        let log = log.to_vec();
        deliveries.spawn(async move { deliver_in_batches(&handler, &log, size).await });
    }
    deliveries.join_all().await
}

/// Topic of each answer, with the reason if it has one.
///
/// # Panics
/// When an answer is no JSON.
pub fn said(answers: &[Outgoing]) -> Vec<(String, Option<String>)> {
    let reason = |answer: &Outgoing| {
        let value: Value = serde_json::from_slice(&answer.payload).expect("JSON");
        value["reason"].as_str().map(str::to_owned)
    };
    answers.iter().map(|answer| (answer.topic.clone(), reason(answer))).collect()
}

fn delivery<H: BatchHandler>(handler: &H, offset: usize, message: &Outgoing) -> Delivery<H::Message> {
    let record = record(offset, message);
    let envelope = Envelope::of(&record).expect("a well-formed envelope");
    let message = handler.decode(&record, &envelope).unwrap_or_else(|poison| panic!("{} on {}", poison, record.topic));
    Delivery { message, envelope, topic: record.topic, partition: 0, offset: record.offset, trace: None }
}

/// `message` as a consumer gets it.
fn record(offset: usize, message: &Outgoing) -> Record {
    let headers = [
        ("ce_specversion", Some("1.0".to_owned())),
        ("ce_id", Some(message.id.to_string())),
        ("ce_type", Some(message.event_type.clone())),
        ("ce_source", Some(message.source.clone())),
        ("ce_subject", Some(message.subject.clone())),
        ("ce_time", Some(message.time.to_rfc3339())),
        ("ce_sagaid", message.saga_id.map(|id| id.to_string())),
        ("ce_step", message.step.clone()),
    ];
    let headers = headers.into_iter().filter_map(|(name, value)| Some((name.to_owned(), Some(value?.into_bytes()))));
    Record {
        topic: message.topic.clone(),
        partition: 0,
        offset: i64::try_from(offset).expect("a small batch"),
        timestamp_ms: None,
        key: Some(message.key.clone().into_bytes()),
        payload: Some(message.payload.clone()),
        headers: headers.collect(),
    }
}

/// Every row of `tables` as text, sorted: two equal answers mean that nothing changed in between.
///
/// # Panics
/// When a table cannot be read.
pub async fn rows(pool: &PgPool, tables: &[&str]) -> Vec<String> {
    let mut all = Vec::new();
    for table in tables {
        let sql = format!("SELECT '{table} ' || t::text FROM {table} AS t ORDER BY 1");
        let rows: Vec<String> = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(pool).await.expect("readable tables");
        all.extend(rows);
    }
    all
}
