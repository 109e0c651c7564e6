//! A saga of two steps that is nobody's: hotel, then flight, which is the pivot.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use messaging::{Envelope, Outgoing, Record};
use saga::ids;
use serde_json::{Value, json};
use sqlx::PgPool;
use testkit::{Env, Process, wait_for, wait_until};
use uuid::Uuid;

/// Nothing is late in it: what happens is caused by messages.
pub const PATIENT: &str = "{ deadline: 5m, attempts: 2, undo: { deadline: 5m, attempts: 2, backoff: 1s } }";
/// Everything unanswered is late in no time.
pub const HASTY: &str = "{ deadline: 400ms, attempts: 2, undo: { deadline: 400ms, attempts: 2, backoff: 100ms } }";

const TOPICS: &[&str] = &[
    "trip.booked",
    "hotel.requested",
    "hotel.reserved",
    "hotel.full",
    "hotel.cancel.requested",
    "hotel.cancelled",
    "flight.requested",
    "flight.booked",
    "flight.full",
    "flight.cancel.requested",
    "flight.cancelled",
    "trip.completed",
    "trip.cancelled",
    "trip.parked",
];
const PARTITIONS: i32 = 4;
/// Longer than a killed consumer's partitions take to find a new owner.
pub const SOON: Duration = Duration::from_secs(40);

/// The definition with these defaults.
pub fn definition(defaults: &str) -> String {
    format!(
        "
saga: trip
version: 1
trigger: {{ topic: trip.booked, type: trip.booked.v1 }}
defaults: {defaults}
steps:
  - name: hotel
    command: {{ topic: hotel.requested, type: hotel.requested.v1, data: {{ city: /trigger/city }} }}
    replies:
      success: {{ topic: hotel.reserved, type: hotel.reserved.v1 }}
      failure: {{ topic: hotel.full, type: hotel.full.v1, reason: /reason }}
    compensation:
      command: {{ topic: hotel.cancel.requested, type: hotel.cancel.requested.v1, data: {{ city: /trigger/city }} }}
      reply: {{ topic: hotel.cancelled, type: hotel.cancelled.v1 }}
  - name: flight
    after: [hotel]
    pivot: true
    command: {{ topic: flight.requested, type: flight.requested.v1, data: {{ room: /steps/hotel/room }} }}
    replies:
      success: {{ topic: flight.booked, type: flight.booked.v1 }}
      failure: {{ topic: flight.full, type: flight.full.v1, reason: /reason }}
    compensation:
      command: {{ topic: flight.cancel.requested, type: flight.cancel.requested.v1, data: {{ city: /trigger/city }} }}
      reply: {{ topic: flight.cancelled, type: flight.cancelled.v1 }}
ends:
  completed: {{ topic: trip.completed, type: trip.completed.v1, data: {{ sagaVersion: /saga/version }} }}
  cancelled:
    topic: trip.cancelled
    type: trip.cancelled.v1
    data: {{ sagaVersion: /saga/version, reason: /saga/reason }}
  parked:
    topic: trip.parked
    type: trip.parked.v1
    data: {{ sagaVersion: /saga/version, reason: /saga/reason }}
"
    )
}

/// Topics, database and definition of a test, and the participants' side of it.
pub struct Trip {
    pub env: Env,
    client: reqwest::Client,
}

impl Trip {
    /// With the saga of these defaults.
    pub async fn new(defaults: &str) -> Self {
        let trip = Trip { env: Env::bare("orchestrator"), client: reqwest::Client::new() };
        trip.env.create_database("orchestrator").await;
        let letters: Vec<String> = TOPICS.iter().map(|topic| format!("{topic}.dlq")).collect();
        let names: Vec<&str> = TOPICS.iter().copied().chain(letters.iter().map(String::as_str)).collect();
        trip.env.create_topics(&names, PARTITIONS).await;
        trip.define(&definition(defaults));
        trip
    }

    /// Replaces the saga's file.
    pub fn define(&self, yaml: &str) {
        let folder = self.env.dir().join("sagas");
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join("trip.yaml"), yaml).expect("a file");
    }

    /// An orchestrator that is ready.
    pub async fn orchestrator(&self, overrides: &[(&str, &str)]) -> Process {
        let process = self.prepare(overrides).await;
        process.start().await;
        process
    }

    /// An orchestrator that is not started.
    pub async fn prepare(&self, overrides: &[(&str, &str)]) -> Process {
        let sagas = self.env.dir().join("sagas").display().to_string();
        let mut settings = vec![("SAGAS_DIR", sagas.as_str())];
        settings.extend(overrides);
        self.env.prepare_service("orchestrator", &settings).await
    }

    /// One that kills itself at `failpoint`, once.
    pub async fn fated(&self, failpoint: &str) -> Process {
        let fired = self.env.dir().join("fired").display().to_string();
        self.orchestrator(&[("FAILPOINT", failpoint), ("FAILPOINT_FIRED", &fired)]).await
    }

    pub fn pool(&self) -> PgPool {
        self.env.pool("orchestrator")
    }

    /// Books a trip and gives its saga's id.
    pub async fn book(&self) -> Uuid {
        let id = Uuid::now_v7();
        self.env.send(booked(id)).await;
        id
    }

    /// Books so many trips.
    pub async fn book_many(&self, count: usize) -> Vec<Uuid> {
        let ids: Vec<Uuid> = (0..count).map(|_| Uuid::now_v7()).collect();
        let messages: Vec<Outgoing> = ids.iter().copied().map(booked).collect();
        self.env.send_all(&messages).await;
        ids
    }

    /// The participant of `step` answers on `topic`.
    pub async fn answer(&self, saga: Uuid, topic: &str, step: &str, data: Value) {
        self.env.send(reply(saga, topic, step, data)).await;
    }

    /// The participant of `step` confirms the undo.
    pub async fn confirm(&self, saga: Uuid, topic: &str, step: &str) {
        self.env.send(undone(saga, topic, step)).await;
    }

    /// The messages of `saga` on `topic`.
    pub async fn messages(&self, topic: &str, saga: Uuid) -> Vec<Record> {
        let key = saga.to_string();
        let mut records = self.env.read_topic(topic).await;
        records.retain(|record| record.key.as_deref() == Some(key.as_bytes()));
        records
    }

    /// Waits until `saga` has `count` messages on `topic` and checks that they are one message sent again.
    pub async fn awaits(&self, topic: &str, saga: Uuid, count: usize) -> Envelope {
        let mut records = Vec::new();
        let came = wait_for(SOON, async || {
            records = self.messages(topic, saga).await;
            (records.len() >= count).then_some(())
        });
        came.await.unwrap_or_else(|| panic!("{} messages of {saga} on {topic}, not {count}", records.len()));
        for record in &records {
            assert_eq!(record.payload, records[0].payload, "every copy is the same, byte for byte");
            assert_eq!(record.header("ce_id"), records[0].header("ce_id"));
            assert_eq!(record.header("ce_time"), records[0].header("ce_time"));
        }
        Envelope::of(&records[0]).expect("a well-formed envelope")
    }

    /// The saga as `orchestrator` shows it.
    pub async fn show(&self, orchestrator: &Process, saga: Uuid) -> Value {
        let (status, body) = self.get(orchestrator, &format!("/api/sagas/{saga}")).await;
        assert_eq!(status, 200, "{body}");
        body
    }

    /// GET of `path`.
    pub async fn get(&self, orchestrator: &Process, path: &str) -> (u16, Value) {
        let response = self.client.get(format!("{}{path}", orchestrator.url())).send().await.expect("an answer");
        (response.status().as_u16(), response.json().await.expect("JSON"))
    }

    /// POST of a verb by an operator.
    pub async fn act(
        &self,
        orchestrator: &Process,
        saga: Uuid,
        verb: &str,
        body: Option<Value>,
    ) -> Option<(u16, Value)> {
        let url = format!("{}/api/sagas/{saga}/{verb}", orchestrator.url());
        let mut request = self.client.post(url).header("X-Actor", "ada");
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.ok()?;
        Some((response.status().as_u16(), response.json().await.ok()?))
    }

    /// Waits until the database has `saga` in `state`.
    pub async fn reaches(&self, saga: Uuid, state: &str) {
        let pool = self.pool();
        let mut seen = None;
        let reached = wait_for(SOON, async || {
            seen = state_of(&pool, saga).await;
            (seen.as_deref() == Some(state)).then_some(())
        });
        reached.await.unwrap_or_else(|| panic!("saga {saga} is {seen:?} and not {state}"));
    }

    /// Answers whatever is asked with success until every saga of `sagas` has ended, as participants would.
    pub async fn serve(&self, sagas: &[Uuid]) {
        let pool = self.pool();
        let mut answered = BTreeSet::new();
        wait_until("every saga ends", SOON * 2, async || {
            for (command, answer, step) in
                [("hotel.requested", "hotel.reserved", "hotel"), ("flight.requested", "flight.booked", "flight")]
            {
                let keys: BTreeSet<Uuid> = self.env.read_topic(command).await.iter().map(key).collect();
                let new: Vec<Uuid> = keys.into_iter().filter(|saga| answered.insert((step, *saga))).collect();
                let replies: Vec<_> =
                    new.into_iter().map(|saga| reply(saga, answer, step, json!({"room": 12}))).collect();
                self.env.send_all(&replies).await;
            }
            unfinished(&pool).await == 0 && count(&pool, "saga").await >= i64::try_from(sagas.len()).expect("few")
        })
        .await;
    }

    /// Checks I8: the timeline of every saga has versions 1..n without a gap, and ends where the saga is.
    pub async fn timelines_are_whole(&self) {
        const BROKEN: &str = "
            SELECT count(*) FROM saga s, LATERAL (
                SELECT count(*) AS entries, max(version) AS last, min(version) AS first FROM saga_timeline t WHERE t.saga_id = s.id
            ) t WHERE t.entries <> s.version OR t.last <> s.version OR t.first <> 1";
        let broken: i64 = sqlx::query_scalar(BROKEN).fetch_one(&self.pool()).await.expect("a count");
        assert_eq!(broken, 0, "timelines with gaps");
    }
}

fn outgoing(topic: &str, saga: Uuid, id: Uuid, data: &Value) -> Outgoing {
    Outgoing {
        topic: topic.to_owned(),
        key: saga.to_string(),
        id,
        event_type: format!("{topic}.v1"),
        source: "/chaos-symphony/test".to_owned(),
        subject: saga.to_string(),
        time: "2026-11-21T10:00:00Z".parse().expect("a time"),
        saga_id: None,
        definition: None,
        step: None,
        causation_id: None,
        traceparent: None,
        payload: data.to_string().into_bytes(),
    }
}

/// The trigger of `saga`.
pub fn booked(saga: Uuid) -> Outgoing {
    outgoing("trip.booked", saga, Uuid::new_v5(&saga, b"trip.booked"), &json!({"city": "Paris"}))
}

/// The answer on `topic` to the command of `step`.
pub fn reply(saga: Uuid, topic: &str, step: &str, data: Value) -> Outgoing {
    Outgoing {
        saga_id: Some(saga),
        definition: None,
        step: Some(step.to_owned()),
        causation_id: Some(ids::command_id(saga, step)),
        ..outgoing(topic, saga, ids::reply_id(saga, step), &data)
    }
}

/// The confirmation on `topic` of the undo of `step`.
pub fn undone(saga: Uuid, topic: &str, step: &str) -> Outgoing {
    Outgoing {
        causation_id: Some(ids::undo_id(saga, step)),
        id: ids::undo_reply_id(saga, step),
        ..reply(saga, topic, step, json!({}))
    }
}

/// The saga a record belongs to.
pub fn key(record: &Record) -> Uuid {
    let key = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok());
    key.and_then(|key| key.parse().ok()).expect("the key is a saga's id")
}

pub async fn state_of(pool: &PgPool, saga: Uuid) -> Option<String> {
    sqlx::query_scalar("SELECT state FROM saga WHERE id = $1").bind(saga).fetch_optional(pool).await.expect("a state")
}

/// Sagas that have not ended.
pub async fn unfinished(pool: &PgPool) -> i64 {
    count(pool, "saga_timer").await
}

/// Rows of `table`.
pub async fn count(pool: &PgPool, table: &str) -> i64 {
    sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}")))
        .fetch_one(pool)
        .await
        .expect("a count")
}

/// The types of a saga's timeline, in order.
pub async fn path(pool: &PgPool, saga: Uuid) -> Vec<String> {
    const PATH: &str = "SELECT type FROM saga_timeline WHERE saga_id = $1 ORDER BY version";
    sqlx::query_scalar(PATH).bind(saga).fetch_all(pool).await.expect("a timeline")
}

/// A metric's value, summed over its labels.
pub async fn metric(orchestrator: &Process, name: &str) -> f64 {
    let text =
        reqwest::get(format!("{}/metrics", orchestrator.url())).await.expect("an answer").text().await.expect("text");
    let samples: BTreeMap<&str, f64> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' '))
        .filter(|(labelled, _)| labelled.split('{').next() == Some(name))
        .filter_map(|(labelled, value)| Some((labelled, value.parse().ok()?)))
        .collect();
    samples.values().sum()
}
