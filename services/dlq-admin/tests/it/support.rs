//! What these tests share: the service, a topic, and a consumer that fails when it is told to.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use messaging::{
    BatchHandler, CancellationToken, Consumer, ConsumerHandle, Delivery, Envelope, HandlerError, Outgoing, Poison,
    Producer, Record, admin, async_trait,
};
use serde_json::{Value, json};
use testkit::{Env, Process, wait_for, wait_until};
use uuid::Uuid;

/// A topic that is no topic of the order application.
pub const WORK: &str = "work";
pub const TYPE: &str = "com.example.work.v1";
pub const SOON: Duration = Duration::from_secs(45);

/// The service and who asks it.
pub struct Desk {
    pub env: Env,
    pub service: Process,
    client: reqwest::Client,
}

impl Desk {
    /// On an environment of its own with the topic [`WORK`].
    pub async fn new(overrides: &[(&str, &str)]) -> Self {
        let env = Env::bare("dlq-admin");
        env.create_topics(&[WORK, "work.dlq"], 2).await;
        Self::on(env, overrides).await
    }

    pub async fn on(env: Env, overrides: &[(&str, &str)]) -> Self {
        let service = env.start_service("dlq-admin", overrides).await;
        Desk { env, service, client: reqwest::Client::new() }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.service.url())
    }

    pub fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method.parse().expect("a method"), self.url(path)).header("X-Actor", "ada")
    }

    pub async fn get(&self, path: &str) -> Value {
        let (status, body) = answer(self.request("GET", path)).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    pub async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        answer(self.request("POST", path).json(&body)).await
    }

    pub async fn put(&self, path: &str, body: Value) -> (u16, Value) {
        answer(self.request("PUT", path).json(&body)).await
    }

    /// All letters that match, the newest first.
    pub async fn letters(&self, query: &str) -> Vec<Value> {
        let page = self.get(&format!("/api/dlq/messages?limit=500&{query}")).await;
        page["items"].as_array().expect("items").clone()
    }

    /// Waits until so many letters match.
    pub async fn awaits(&self, query: &str, count: usize) -> Vec<Value> {
        let mut letters = Vec::new();
        wait_until(&format!("{count} letters with {query:?}"), SOON, async || {
            letters = self.letters(query).await;
            letters.len() >= count
        })
        .await;
        assert_eq!(letters.len(), count, "{query}: {letters:#?}");
        letters
    }

    /// Waits until the letter is in that state.
    pub async fn reaches(&self, id: &str, state: &str) -> Value {
        let path = format!("/api/dlq/messages/{id}");
        let mut last = Value::Null;
        let reached = wait_for(SOON, async || {
            last = self.get(&path).await;
            (last["state"] == state).then(|| last.clone())
        })
        .await;
        reached.unwrap_or_else(|| panic!("{id} never came to {state}: {last:#}"))
    }

    /// Sends records as they are.
    pub async fn produce(&self, topic: &str, records: &[Record]) {
        let kafka = self.env.kafka();
        admin::produce(&kafka.bootstrap_servers, &kafka.topic(topic), records).await.expect("they are sent");
    }
}

pub async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.expect("an answer");
    let status = response.status().as_u16();
    let body = response.text().await.expect("a body");
    (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}")))
}

pub fn id(letter: &Value) -> String {
    letter["id"].as_str().expect("an id").to_owned()
}

/// A record with text headers.
pub fn record(key: &[u8], payload: &[u8], headers: &[(&str, &[u8])]) -> Record {
    Record {
        topic: String::new(),
        partition: 0,
        offset: 0,
        timestamp_ms: None,
        key: Some(key.to_vec()),
        payload: Some(payload.to_vec()),
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), Some(value.to_vec()))).collect(),
    }
}

/// A message on [`WORK`].
pub fn work(key: &str, value: &str) -> Outgoing {
    Outgoing {
        topic: WORK.into(),
        key: key.into(),
        id: Uuid::new_v4(),
        event_type: TYPE.into(),
        source: "/test".into(),
        subject: key.into(),
        time: chrono_now(),
        saga_id: None,
        definition: None,
        step: None,
        causation_id: None,
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00".into()),
        payload: json!(value).to_string().into_bytes(),
    }
}

fn chrono_now() -> chrono::DateTime<chrono::Utc> {
    "2026-11-21T10:00:00Z".parse().expect("a time")
}

/// Takes part in [`WORK`] as a participant does: each message has one effect, by its `ce_id`. It cannot process the values
/// in `poison`.
#[derive(Default)]
pub struct Worker {
    poison: Mutex<HashSet<String>>,
    effects: Mutex<Vec<(Uuid, String)>>,
}

impl Worker {
    /// From now on it cannot process these values, and only these.
    pub fn fails_at(&self, values: &[&str]) {
        *self.poison.lock().unwrap_or_else(PoisonError::into_inner) =
            values.iter().map(|value| (*value).to_owned()).collect();
    }

    /// What it did, sorted.
    pub fn effects(&self) -> Vec<String> {
        let effects = self.effects.lock().unwrap_or_else(PoisonError::into_inner);
        let mut values: Vec<String> = effects.iter().map(|(_, value)| value.clone()).collect();
        values.sort();
        values
    }

    /// Joins the group `worker`.
    pub fn join(self: &Arc<Self>, env: &Env) -> Member {
        let shutdown = CancellationToken::new();
        let producer = Producer::new(&env.kafka(), "worker").expect("a producer");
        let consumer = Consumer::new("worker", self.clone()).topic(WORK, TYPE);
        let handle = consumer.spawn(&env.kafka(), producer, shutdown.clone()).expect("the consumer starts");
        Member { handle: Some(handle), shutdown }
    }
}

/// A running consumer; it leaves when this is dropped.
pub struct Member {
    handle: Option<ConsumerHandle>,
    shutdown: CancellationToken,
}

impl Member {
    pub async fn stop(mut self) {
        self.shutdown.cancel();
        let handle = self.handle.take().expect("it is stopped once");
        handle.stopped.await.expect("it ends without a panic");
    }
}

impl Drop for Member {
    /// A test that fails must not wait for its consumer for ever.
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

#[async_trait]
impl BatchHandler for Worker {
    type Message = String;

    fn decode(&self, record: &Record, _: &Envelope) -> Result<String, Poison> {
        record.json()
    }

    async fn handle(&self, batch: &[Delivery<String>]) -> Result<Vec<Outgoing>, HandlerError> {
        let poison = self.poison.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bad) = batch.iter().find(|delivery| poison.contains(&delivery.message)) {
            return Err(HandlerError::poison("cannot-work", format!("{} of order {}", bad.message, bad.envelope.id)));
        }
        let mut effects = self.effects.lock().unwrap_or_else(PoisonError::into_inner);
        for Delivery { message, envelope, .. } in batch {
            if effects.iter().all(|(id, _)| *id != envelope.id) {
                effects.push((envelope.id, message.clone()));
            }
        }
        Ok(Vec::new())
    }
}
