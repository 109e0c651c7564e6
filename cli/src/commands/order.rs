//! `symphony order`: places one order and, if wanted, shows its saga until it ends.

use std::collections::HashSet;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::api::{Api, problem};

/// How often the saga is looked at between two events of the order.
const INTERVAL: Duration = Duration::from_millis(150);

/// Places one order.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example:\n  symphony order --sku SKU-007 --quantity 3 --watch")]
pub struct Args {
    /// What to order
    #[arg(long, default_value = "SKU-001")]
    pub sku: String,
    /// How many
    #[arg(long, default_value_t = 1)]
    pub quantity: u32,
    /// Price of one, in minor units
    #[arg(long, default_value_t = 1999)]
    pub unit_price: i64,
    /// ISO 4217 code of the currency
    #[arg(long, default_value = "EUR")]
    pub currency: String,
    /// tok_ok, tok_declined, or tok_slow
    #[arg(long, default_value = "tok_ok")]
    pub payment_token: String,
    /// ISO 3166 code of the country it goes to; AQ is not served
    #[arg(long, default_value = "FR")]
    pub country: String,
    /// Who orders
    #[arg(long, default_value = "c-1001")]
    pub customer: String,
    /// Placing it again with the same key gives the same order
    #[arg(long)]
    pub idempotency_key: Option<String>,
    /// Show the saga step by step until the order ends or is parked
    #[arg(long)]
    pub watch: bool,
}

/// Places the order and prints its id, or with `--watch` its way to the end. It fails when the order is not accepted,
/// or is PARKED at the end of watching.
pub async fn run(args: &Args, api: &Api, json: bool) -> anyhow::Result<ExitCode> {
    let order = place(args, api).await?;
    if !args.watch {
        print(json, &json!({ "orderId": order, "status": "PENDING" }), &format!("{order} PENDING"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let end = watch(api, order, json).await?;
    let status = end["status"].as_str().unwrap_or_default().to_owned();
    let reason = end["reason"].as_str().map(|reason| format!(": {reason}")).unwrap_or_default();
    print(json, &end, &format!("{order} {status}{reason}"))?;
    Ok(if status == "PARKED" { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn print(json: bool, value: &Value, text: &str) -> anyhow::Result<()> {
    if json {
        outln!("{value}");
    } else {
        outln!("{text}");
    }
    Ok(())
}

async fn place(args: &Args, api: &Api) -> anyhow::Result<Uuid> {
    let body = json!({
        "customerId": args.customer,
        "currency": args.currency,
        "items": [{ "sku": args.sku, "quantity": args.quantity, "unitPrice": args.unit_price }],
        "payment": { "token": args.payment_token },
        "shipping": {
            "name": "Ada Lovelace", "street": "1 Main St", "city": "Paris", "postalCode": "75001",
            "country": args.country
        }
    });
    let key = args.idempotency_key.clone().unwrap_or_else(|| Uuid::new_v4().to_string());
    let request = api.request(Method::POST, "order-api", "/api/orders")?.timeout(Duration::from_secs(30));
    let request = request.header("Idempotency-Key", key).json(&body);
    let response = request.send().await.context("order-api does not answer")?;
    let (status, body) = (response.status(), response.text().await?);
    if status != StatusCode::ACCEPTED {
        return Err(anyhow!("the order is not accepted ({status}): {}", problem(&body)));
    }
    let answer: Value = serde_json::from_str(&body)?;
    let id = answer["orderId"].as_str().ok_or_else(|| anyhow!("no orderId in {body}"))?;
    Ok(id.parse()?)
}

/// Follows the order's events to its end, and shows each transition of its saga as it comes.
async fn watch(api: &Api, order: Uuid, json: bool) -> anyhow::Result<Value> {
    let start = Instant::now();
    let mut shown = HashSet::new();
    let mut events = tokio::spawn(end_of_events(api.clone(), order));
    loop {
        let ended = tokio::time::timeout(INTERVAL, &mut events).await;
        // The end event is made by the saga's last transition: what is asked for now has it.
        show_timeline(api, order, start, json, &mut shown).await;
        let status = match ended {
            Ok(result) => {
                // A stream that broke is followed again; the order itself says whether it has ended.
                if result?.is_err() {
                    tokio::time::sleep(INTERVAL).await;
                }
                events = tokio::spawn(end_of_events(api.clone(), order));
                api.get("order-api", &format!("/api/orders/{order}"), &[]).await
            }
            Err(_still_open) => continue,
        };
        if let Ok(found) = status
            && found["status"] != "PENDING"
        {
            events.abort();
            show_timeline(api, order, start, json, &mut shown).await;
            return Ok(found);
        }
    }
}

/// Returns when the order's event stream says that it rests, or ends.
async fn end_of_events(api: Api, order: Uuid) -> anyhow::Result<()> {
    let request = api.request(Method::GET, "order-api", &format!("/api/orders/{order}/events"))?;
    let mut response = request.header("Accept", "text/event-stream").send().await?.error_for_status()?;
    let mut text = String::new();
    while let Some(chunk) = response.chunk().await? {
        text.push_str(&String::from_utf8_lossy(&chunk));
        // The stream stays open at PARKED.
        if ["COMPLETED", "CANCELLED", "PARKED"].iter().any(|status| text.contains(status)) {
            return Ok(());
        }
    }
    Ok(())
}

/// Prints what is new in the saga's timeline, to stderr. While nothing answers there is nothing to show.
async fn show_timeline(api: &Api, order: Uuid, start: Instant, json: bool, shown: &mut HashSet<i64>) {
    let Ok(saga) = api.get("orchestrator", &format!("/api/sagas/{order}"), &[]).await else { return };
    for entry in saga["timeline"].as_array().into_iter().flatten() {
        if !shown.insert(entry["version"].as_i64().unwrap_or_default()) {
            continue;
        }
        if json {
            eprintln!("{entry}");
            continue;
        }
        let text = |name: &str| entry[name].as_str().unwrap_or_default();
        let line = format!("{:>3}  {:<18} {:<10} {}", entry["version"], text("type"), text("step"), text("detail"));
        eprintln!("{:>6.2} s  {}", start.elapsed().as_secs_f64(), line.trim_end());
    }
}
