//! `symphony load N`: places N orders and waits for their ends.

mod ends;
mod mix;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use reqwest::{Method, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::api::{Api, problem};

pub use ends::Ends;
pub use mix::Mix;
use mix::{Kind, parse_mix};

/// Places orders and waits for their ends.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example:\n  symphony load 20000 --clients 64 --mix declined=5,unserved=10")]
pub struct Args {
    /// How many orders to place
    pub orders: u64,
    /// How many clients place them, each one after the other
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub clients: u16,
    /// Percentages of orders that cannot succeed, 100 in sum at most: declined and slow (payment), unserved (country),
    /// unknown (SKU). For example declined=5,unserved=10
    #[arg(long, default_value = "", value_parser = parse_mix)]
    pub mix: Mix,
    /// Seconds without an answer, or without the end of one more order, after which it gives up
    #[arg(long, default_value_t = 300)]
    pub patience: u64,
}

/// What came of a load.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Orders that were asked for.
    pub orders: u64,
    /// Orders answered 202.
    pub accepted: u64,
    /// Requests that were sent again, because the answer was missing or said to come back.
    pub retried: u64,
    /// Number of orders by status, as order-api lists them.
    pub statuses: BTreeMap<String, u64>,
    /// Seconds until the last order was accepted.
    pub placed_seconds: f64,
    /// Seconds until the last order ended.
    pub ended_seconds: f64,
    /// Milliseconds from the first try of a request to its 202.
    pub accept_p50_ms: f64,
    /// As above.
    pub accept_p99_ms: f64,
    /// The customer of all these orders, unique to this load.
    pub customer_id: String,
}

impl Summary {
    /// Whether every order was accepted and has ended.
    pub fn is_complete(&self) -> bool {
        let ended = |status: &str| self.statuses.get(status).copied().unwrap_or_default();
        self.accepted == self.orders && ended("COMPLETED") + ended("CANCELLED") == self.orders
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "orders     {}", self.orders)?;
        writeln!(f, "accepted   {} ({} requests sent again)", self.accepted, self.retried)?;
        for (status, count) in &self.statuses {
            writeln!(f, "{status:<10} {count}")?;
        }
        let rate = |seconds: f64| self.orders as f64 / seconds.max(0.001);
        writeln!(f, "placed in  {:.1} s ({:.0}/s)", self.placed_seconds, rate(self.placed_seconds))?;
        writeln!(f, "ended in   {:.1} s ({:.0}/s)", self.ended_seconds, rate(self.ended_seconds))?;
        writeln!(f, "202 after  p50 {:.1} ms, p99 {:.1} ms", self.accept_p50_ms, self.accept_p99_ms)?;
        write!(f, "customer   {}", self.customer_id)
    }
}

/// Runs the load and prints its summary. It fails unless every order was accepted and has ended.
pub async fn run(args: &Args, api: &Api, json: bool) -> anyhow::Result<ExitCode> {
    let summary = load(args, api).await?;
    if json {
        outln!("{}", serde_json::to_string(&summary)?);
    } else {
        outln!("{summary}");
    }
    Ok(if summary.is_complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What the clients share.
struct Load {
    api: Api,
    args: Args,
    customer: String,
    next: AtomicU64,
    accepted: AtomicU64,
    retried: AtomicU64,
    micros: Mutex<Vec<u64>>,
}

/// Places the orders, waits for their ends, and counts.
pub async fn load(args: &Args, api: &Api) -> anyhow::Result<Summary> {
    api.url("order-api")?;
    let customer = format!("load-{}", &Uuid::new_v4().simple().to_string()[..12]);
    let load = Arc::new(Load {
        api: api.clone(),
        args: args.clone(),
        customer,
        next: AtomicU64::new(0),
        accepted: AtomicU64::new(0),
        retried: AtomicU64::new(0),
        micros: Mutex::default(),
    });
    let start = Instant::now();
    let clients: Vec<_> = (0..args.clients).map(|_| tokio::spawn(Arc::clone(&load).client())).collect();
    let progress = tokio::spawn(Arc::clone(&load).report());
    let mut failure = None;
    for client in clients {
        failure = client.await?.err().or(failure);
    }
    progress.abort();
    if let Some(error) = failure {
        return Err(error);
    }
    let placed_seconds = start.elapsed().as_secs_f64();
    let ends =
        Ends { api: load.api.clone(), customer: load.customer.clone(), patience: Duration::from_secs(args.patience) };
    ends.wait().await?;
    let ended_seconds = start.elapsed().as_secs_f64();

    let mut micros = std::mem::take(&mut *load.micros.lock().unwrap_or_else(PoisonError::into_inner));
    micros.sort_unstable();
    let percentile = |share: f64| {
        let rank = ((micros.len() as f64 * share).ceil() as usize).clamp(1, micros.len().max(1)) - 1;
        micros.get(rank).copied().unwrap_or_default() as f64 / 1000.0
    };
    Ok(Summary {
        orders: args.orders,
        accepted: load.accepted.load(Ordering::Relaxed),
        retried: load.retried.load(Ordering::Relaxed),
        statuses: ends.count().await?,
        placed_seconds,
        ended_seconds,
        accept_p50_ms: percentile(0.5),
        accept_p99_ms: percentile(0.99),
        customer_id: load.customer.clone(),
    })
}

impl Load {
    async fn client(self: Arc<Self>) -> anyhow::Result<()> {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.args.orders {
                return Ok(());
            }
            let start = Instant::now();
            self.place(number).await?;
            let micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.micros.lock().unwrap_or_else(PoisonError::into_inner).push(micros);
            self.accepted.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Places one order, again and again under its one Idempotency-Key until it is answered 202: whatever became of a
    /// request without an answer, there is one order.
    async fn place(&self, number: u64) -> anyhow::Result<()> {
        let start = Instant::now();
        let body = self.body(number);
        let key = format!("{}-{number}", self.customer);
        let mut pause = Duration::from_millis(50);
        loop {
            let refusal = match self.post(&key, &body).await {
                Ok(response) => match response.status() {
                    StatusCode::ACCEPTED => return Ok(()),
                    status if status.is_server_error() || is_temporary(status) => {
                        let wanted = response.headers().get("retry-after").and_then(|value| value.to_str().ok());
                        let wanted = wanted.and_then(|text| text.parse().ok()).map(Duration::from_secs);
                        pause = pause.max(wanted.unwrap_or_default().min(Duration::from_secs(5)));
                        anyhow!("order-api answered {status}")
                    }
                    status => bail!("order-api answered {status}: {}", problem(&response.text().await?)),
                },
                Err(error) => error,
            };
            if start.elapsed() >= Duration::from_secs(self.args.patience) {
                return Err(refusal.context(format!("gave up after {} s", self.args.patience)));
            }
            self.retried.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    async fn post(&self, key: &str, body: &Value) -> anyhow::Result<reqwest::Response> {
        let request = self.api.request(Method::POST, "order-api", "/api/orders")?.timeout(Duration::from_secs(30));
        Ok(request.header("Idempotency-Key", key).json(body).send().await?)
    }

    fn body(&self, number: u64) -> Value {
        let kind = self.args.mix.kind(number);
        let sku = if kind == Kind::Unknown { "SKU-UNKNOWN".into() } else { format!("SKU-{:03}", number % 100 + 1) };
        let token = match kind {
            Kind::Declined => "tok_declined",
            Kind::Slow => "tok_slow",
            _ => "tok_ok",
        };
        json!({
            "customerId": self.customer,
            "currency": "EUR",
            "items": [{ "sku": sku, "quantity": 1, "unitPrice": 100 + number % 900 }],
            "payment": { "token": token },
            "shipping": {
                "name": "Ada Lovelace", "street": "1 Main St", "city": "Paris", "postalCode": "75001",
                "country": if kind == Kind::Unserved { "AQ" } else { "FR" }
            }
        })
    }

    /// Tells on stderr, now and then, how many orders are placed.
    async fn report(self: Arc<Self>) {
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            eprintln!("{} of {} accepted", self.accepted.load(Ordering::Relaxed), self.args.orders);
        }
    }
}

/// Answers that say "not now" to a request that is right.
fn is_temporary(status: StatusCode) -> bool {
    matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::CONFLICT | StatusCode::REQUEST_TIMEOUT)
}
