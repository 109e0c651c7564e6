//! Orders at a steady rate, whether or not they are answered, as from many clients that know nothing of each other.
//!
//! A client takes an answer that is missing or says "not now" for an unknown outcome and asks again with the same
//! Idempotency-Key. Between clients and replicas of order-api is what a load balancer does: requests go to those that
//! say they are ready.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;
use uuid::Uuid;

use super::stand::Stand;

/// How often readiness is asked for, well within the time for which a service that leaves still answers.
const HEALTH: Duration = Duration::from_millis(50);
/// One of so many orders is asked for once more after it was accepted.
const REPEATED: u64 = 50;

/// An order that was answered 202.
#[derive(Clone, Debug)]
pub(super) struct Accepted {
    pub(super) id: Uuid,
    pub(super) at: Instant,
    /// Whether it can succeed.
    pub(super) good: bool,
}

/// What the clients share.
pub(super) struct Load {
    http: Client,
    customer: String,
    state_file: std::path::PathBuf,
    replicas: Mutex<Vec<String>>,
    turn: AtomicUsize,
    stop: AtomicBool,
    began: Instant,
    /// Orders accepted in a second, until no more were placed.
    rate: Mutex<f64>,
    /// Only orders that can succeed.
    calm: AtomicBool,
    placed: AtomicU64,
    open: AtomicUsize,
    retried: AtomicU64,
    repeated: AtomicU64,
    accepted: Mutex<Vec<Accepted>>,
    micros: Mutex<Vec<u64>>,
    wrong: Mutex<Vec<String>>,
    /// What answers were given that were no 202.
    refused: Mutex<BTreeMap<String, u64>>,
}

/// What became of all requests.
#[derive(Clone, Debug, Default, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Summary {
    /// Orders that were asked for.
    pub(super) placed: u64,
    /// Orders answered 202.
    pub(super) accepted: u64,
    /// Orders answered 202 in a second, from the first until no more were asked for.
    pub(super) rate_per_second: f64,
    /// Requests sent again.
    pub(super) retried: u64,
    /// Orders asked for once more after their 202, which gave the same order.
    pub(super) repeated: u64,
    /// Answers other than 202, and their number.
    pub(super) refused: BTreeMap<String, u64>,
    /// Milliseconds from the first request to the 202.
    pub(super) accept_p50_ms: f64,
    /// As above.
    pub(super) accept_p99_ms: f64,
    /// As above.
    pub(super) accept_max_ms: f64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Load {
    /// Begins to place so many orders a second.
    pub(super) fn start(stand: &Stand, rate: u32) -> anyhow::Result<Arc<Self>> {
        let load = Arc::new(Self {
            http: Client::builder().connect_timeout(Duration::from_secs(2)).timeout(Duration::from_secs(15)).build()?,
            customer: format!("soak-{}", &Uuid::new_v4().simple().to_string()[..12]),
            state_file: stand.state_file(),
            replicas: Mutex::new(vec![stand.component("order-api")?.url]),
            turn: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            began: Instant::now(),
            rate: Mutex::default(),
            calm: AtomicBool::new(false),
            placed: AtomicU64::new(0),
            open: AtomicUsize::new(0),
            retried: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
            accepted: Mutex::default(),
            micros: Mutex::default(),
            wrong: Mutex::default(),
            refused: Mutex::default(),
        });
        tokio::spawn(Arc::clone(&load).watch());
        tokio::spawn(Arc::clone(&load).tick(rate));
        Ok(load)
    }

    /// From now on only orders that can succeed.
    pub(super) fn calm(&self) {
        self.calm.store(true, Ordering::Relaxed);
    }

    /// Places no more, and waits until all that were placed are answered.
    pub(super) async fn stop(&self, limit: Duration) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        // Now, and not when all are answered: what was refused for long is no part of the rate.
        let accepted = lock(&self.accepted).len();
        *lock(&self.rate) = accepted as f64 / self.began.elapsed().as_secs_f64();
        let all = async || (self.open.load(Ordering::Relaxed) == 0).then_some(());
        super::stand::until("the answer to every order", limit, all).await
    }

    /// All accepted so far.
    pub(super) fn accepted(&self) -> Vec<Accepted> {
        lock(&self.accepted).clone()
    }

    /// Up to `most` good orders that were accepted after `since`, the first of them.
    pub(super) fn accepted_since(&self, since: Instant, most: usize) -> Vec<Uuid> {
        let accepted = lock(&self.accepted);
        let first = accepted.partition_point(|order| order.at < since);
        accepted[first..].iter().filter(|order| order.good).take(most).map(|order| order.id).collect()
    }

    /// Requests that had to be sent again, so far.
    pub(super) fn retried(&self) -> u64 {
        self.retried.load(Ordering::Relaxed)
    }

    /// Orders that are asked for and not answered.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Replicas that requests go to.
    pub(super) fn replicas(&self) -> usize {
        lock(&self.replicas).len()
    }

    /// What must never be answered, and was.
    pub(super) fn wrong(&self) -> Vec<String> {
        lock(&self.wrong).clone()
    }

    /// What became of all requests, after the last.
    pub(super) fn summary(&self) -> Summary {
        let mut micros = lock(&self.micros).clone();
        micros.sort_unstable();
        let at = |share: f64| {
            let rank = (micros.len() as f64 * share).ceil() as usize;
            micros.get(rank.clamp(1, micros.len().max(1)) - 1).copied().unwrap_or_default() as f64 / 1000.0
        };
        Summary {
            placed: self.placed.load(Ordering::Relaxed),
            accepted: lock(&self.accepted).len() as u64,
            rate_per_second: *lock(&self.rate),
            retried: self.retried(),
            repeated: self.repeated.load(Ordering::Relaxed),
            refused: lock(&self.refused).clone(),
            accept_p50_ms: at(0.5),
            accept_p99_ms: at(0.99),
            accept_max_ms: at(1.0),
        }
    }

    async fn tick(self: Arc<Self>, rate: u32) {
        let mut timer = tokio::time::interval(Duration::from_secs(1) / rate.max(1));
        // What the machine could not do in time is made up for.
        timer.set_missed_tick_behavior(MissedTickBehavior::Burst);
        while !self.stop.load(Ordering::Relaxed) {
            timer.tick().await;
            let number = self.placed.fetch_add(1, Ordering::Relaxed);
            self.open.fetch_add(1, Ordering::Relaxed);
            let load = Arc::clone(&self);
            tokio::spawn(async move {
                load.place(number).await;
                load.open.fetch_sub(1, Ordering::Relaxed);
            });
        }
    }

    /// Keeps the list of replicas that are ready; the last ones while none is.
    async fn watch(self: Arc<Self>) {
        let (mut known, mut looks) = (lock(&self.replicas).clone(), 0_u32);
        while !self.stop.load(Ordering::Relaxed) || self.open() > 0 {
            if looks.is_multiple_of(5) {
                known = self.known().unwrap_or(known);
            }
            looks = looks.wrapping_add(1);
            let mut ready = Vec::new();
            for url in &known {
                let asked = self.http.get(format!("{url}/readyz")).timeout(Duration::from_secs(1)).send().await;
                if asked.is_ok_and(|answer| answer.status().is_success()) {
                    ready.push(url.clone());
                }
            }
            *lock(&self.replicas) = if ready.is_empty() { known.clone() } else { ready };
            tokio::time::sleep(HEALTH).await;
        }
    }

    /// The replicas that the supervisor runs.
    fn known(&self) -> Option<Vec<String>> {
        let state: Value = serde_json::from_slice(&std::fs::read(&self.state_file).ok()?).ok()?;
        let is_replica = |one: &&Value| one["name"] == "order-api" && one["pid"].is_u64();
        let components = state["components"].as_array()?.iter().filter(is_replica);
        let urls: Vec<String> = components.filter_map(|one| Some(one["url"].as_str()?.to_owned())).collect();
        (!urls.is_empty()).then_some(urls)
    }

    async fn place(&self, number: u64) {
        let (body, good) = self.body(number);
        let key = format!("{}-{number}", self.customer);
        let start = Instant::now();
        let Some(id) = self.until_accepted(&key, &body).await else { return };
        let micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        lock(&self.micros).push(micros);
        self.note(id, good);
        if number.is_multiple_of(REPEATED) {
            let Some(again) = self.until_accepted(&key, &body).await else { return };
            self.repeated.fetch_add(1, Ordering::Relaxed);
            if again != id {
                lock(&self.wrong).push(format!("the key {key} gave order {id}, and then order {again}"));
            }
        }
    }

    /// Inside the lock, so that the list is in the order of time.
    fn note(&self, id: Uuid, good: bool) {
        let mut accepted = lock(&self.accepted);
        accepted.push(Accepted { id, at: Instant::now(), good });
    }

    /// Sends the request until it is answered 202. `None` when it is refused for good.
    async fn until_accepted(&self, key: &str, body: &Value) -> Option<Uuid> {
        let mut pause = Duration::from_millis(50);
        loop {
            let refusal = match self.post(key, body).await {
                Ok((StatusCode::ACCEPTED, answer)) => match answer["orderId"].as_str().and_then(|id| id.parse().ok()) {
                    Some(id) => return Some(id),
                    None => {
                        lock(&self.wrong).push(format!("{key} was answered 202 with {answer}"));
                        return None;
                    }
                },
                Ok((status, _)) if status.is_server_error() || is_temporary(status) => status.to_string(),
                Ok((status, answer)) => {
                    lock(&self.wrong).push(format!("{key} was answered {status}: {answer}"));
                    return None;
                }
                Err(error) if error.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_timeout) => {
                    "no answer in time".to_owned()
                }
                Err(_) => "no connection".to_owned(),
            };
            *lock(&self.refused).entry(refusal).or_default() += 1;
            self.retried.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    async fn post(&self, key: &str, body: &Value) -> anyhow::Result<(StatusCode, Value)> {
        let url = {
            let replicas = lock(&self.replicas);
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            replicas.get(turn % replicas.len().max(1)).cloned().context("a replica of order-api")?
        };
        let request = self.http.post(format!("{url}/api/orders")).header("Idempotency-Key", key).json(body);
        let response = request.send().await?;
        let status = response.status();
        let answer = response.text().await?;
        Ok((status, serde_json::from_str(&answer).unwrap_or(Value::String(answer))))
    }

    fn body(&self, number: u64) -> (Value, bool) {
        // Of a hundred orders 5 are declined, 5 cannot be shipped and 1 gets no answer from payment.
        let lot = if self.calm.load(Ordering::Relaxed) { 99 } else { number * 37 % 100 };
        let (token, country) = match lot {
            0..5 => ("tok_declined", "FR"),
            5..10 => ("tok_ok", "AQ"),
            10 => ("tok_slow", "FR"),
            _ => ("tok_ok", "FR"),
        };
        let body = json!({
            "customerId": self.customer,
            "currency": "EUR",
            "items": [{
                "sku": format!("SKU-{:03}", number % 100 + 1), "quantity": 1 + number % 3, "unitPrice": 100 + number % 900
            }],
            "payment": { "token": token },
            "shipping": {
                "name": "Ada Lovelace", "street": "1 Main St", "city": "Paris", "postalCode": "75001", "country": country
            }
        });
        (body, lot > 10)
    }
}

/// Answers that say "not now" to a request that is right.
fn is_temporary(status: StatusCode) -> bool {
    matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::CONFLICT | StatusCode::REQUEST_TIMEOUT)
}
