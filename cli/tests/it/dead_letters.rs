//! Dead letters, from the poison to the order's end.

use std::collections::BTreeSet;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt};
use serde_json::{Value, json};
use testkit::{Cluster, Env, order, order_with, wait_until};
use uuid::Uuid;

use crate::stand::{SOON, assert_clean, data_dir, impatient, number};

/// Poisoned orders of the campaigns, unless `DEAD_LETTERS` says another number (10000 takes minutes); as many good ones
/// between them.
const LETTERS: usize = 300;
/// Of these, as many are repaired one by one at most: each is two requests.
const EDITED: usize = 60;

/// No shipment goes to Nowhere: a defect, to shipping-svc, that it cannot tell from a poisonous message.
const POISON: &str = "
CREATE FUNCTION no_carrier() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'no carrier for order %', NEW.order_id;
END $$;
CREATE TRIGGER no_carrier BEFORE INSERT ON shipments FOR EACH ROW WHEN (NEW.destination->>'city' = 'Nowhere')
EXECUTE FUNCTION no_carrier();";

/// Sagas that wait until somebody has repaired their messages.
fn patient(env: &Env) -> String {
    impatient(env, &[("  deadline: 15s\n  attempts: 4", "  deadline: 3600s\n  attempts: 4")])
}

async fn poison(env: &Env) {
    sqlx::raw_sql(POISON).execute(&env.pool("shipping")).await.expect("a trigger");
}

fn symphony(cluster: &Cluster<'_>, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_symphony"));
    command.arg("--data-dir").arg(data_dir(cluster)).arg("--json").args(arguments);
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn json_of(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The letter's message, to another city.
async fn repaired(cluster: &Cluster<'_>, letter: &str) -> String {
    let detail = cluster.get("dlq-admin", &format!("/api/dlq/messages/{letter}")).await;
    detail["payload"]["text"].as_str().expect("text").replace("Nowhere", "Paris")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poisoned_order_is_repaired_and_sent_back_and_completes_once() {
    let env = Env::new("dead-letter").await;
    let cluster = env.cluster().set("orchestrator", "SAGAS_DIR", patient(&env)).start().await;
    poison(&env).await;
    let order = cluster.place(&order_with("/shipping/city", "Nowhere")).await;
    let mut page = Value::Null;
    wait_until("the letter to be listed", SOON, async || {
        page = json_of(&symphony(&cluster, &["dlq", "list", "--key", &order.to_string()]));
        page["items"].as_array().is_some_and(|letters| !letters.is_empty())
    })
    .await;
    let letters = page["items"].as_array().expect("letters");
    assert_eq!(letters.len(), 1, "{page:#}");
    let letter = &letters[0];
    assert_eq!((&letter["topic"], &letter["group"]), (&json!("shipping.requested"), &json!("shipping-svc")));
    assert_eq!((&letter["reason"], &letter["attempts"]), (&json!("database-error"), &json!(3)));
    let id = letter["id"].as_str().expect("an id");

    let file = env.dir().join("repaired.json");
    let file_name = file.display().to_string();
    std::fs::write(&file, "{\"orderId\": 7}").expect("a file");
    let refused = symphony(&cluster, &["dlq", "edit", id, "--payload", &file_name]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("/payload"), "{refused:?}");
    std::fs::write(&file, repaired(&cluster, id).await).expect("a file");
    let edited = json_of(&symphony(&cluster, &["dlq", "edit", id, "--payload", &file_name, "--actor", "ada"]));
    assert_eq!(edited["edited"], true);
    json_of(&symphony(&cluster, &["dlq", "replay", id, "--actor", "ada"]));
    assert_eq!(cluster.ended(order, SOON).await["status"], "COMPLETED");
    wait_until("the letter to be reprocessed", SOON, async || {
        cluster.get("dlq-admin", &format!("/api/dlq/messages/{id}")).await["state"] == "REPROCESSED"
    })
    .await;

    let again = symphony(&cluster, &["dlq", "replay", id]);
    assert_eq!(again.status.code(), Some(1), "it was sent once");
    assert_eq!(env.read_topic("shipping.requested").await.len(), 2);
    assert_eq!(number(&env, "shipping", "SELECT count(*) FROM shipments WHERE state = 'SCHEDULED'").await, 1);
    let audit = json_of(&symphony(&cluster, &["dlq", "audit"]));
    let acts: Vec<_> = audit["items"].as_array().expect("items").iter().map(|e| (&e["act"], &e["result"])).collect();
    assert_eq!(acts.iter().filter(|(_, result)| **result == "refused").count(), 2, "{acts:?}");
    let first = json_of(&symphony(&cluster, &["dlq", "audit", "--limit", "1"]));
    let cursor = first["nextCursor"].as_str().expect("there is more");
    let second = json_of(&symphony(&cluster, &["dlq", "audit", "--limit", "1", "--cursor", cursor]));
    assert_eq!((&first["items"][0], &second["items"][0]), (&audit["items"][0], &audit["items"][1]));
    let whole = env.dir().join("whole.json");
    let saved = symphony(&cluster, &["dlq", "show", id, "--save", &whole.display().to_string()]);
    assert!(saved.status.success(), "{}", String::from_utf8_lossy(&saved.stderr));
    assert!(std::fs::read_to_string(&whole).expect("the file").contains("Nowhere"), "the original is kept");
    let many =
        ["dlq", "discard", "--topic", "shipping.requested", "--dead-for", "database-error", "--reason", "a test"];
    let told = json_of(&symphony(&cluster, &[&many[..], &["--dry-run"]].concat()));
    assert_eq!(told, json!({ "dryRun": true, "discarded": 0 }), "it is reprocessed");
    assert_clean(&env).await;
}

fn count() -> usize {
    std::env::var("DEAD_LETTERS").ok().and_then(|count| count.parse().ok()).unwrap_or(LETTERS)
}

/// Places `count` poisoned orders with `count` good ones between them, and waits until the good ones are completed and each
/// poisoned one is listed once. Gives the ids of the letters.
async fn poisoned(cluster: &Cluster<'_>, count: usize) -> Vec<String> {
    let (bad, good) = (order_with("/shipping/city", "Nowhere"), order());
    let started = Instant::now();
    stream::iter(0..2 * count)
        .map(|n| cluster.place(if n % 2 == 0 { &bad } else { &good }))
        .buffer_unordered(32)
        .collect::<Vec<Uuid>>()
        .await;
    eprintln!("{} orders placed after {:.1?}", 2 * count, started.elapsed());
    let patience = SOON + Duration::from_millis(100 * count as u64);
    let expected = i64::try_from(count).expect("a small number");
    let completed = "SELECT count(*) FROM orders WHERE status = 'COMPLETED'";
    wait_until("the good ones to be completed", patience, async || {
        number(cluster.env(), "orders", completed).await == expected
    })
    .await;
    eprintln!("{count} good ones completed after {:.1?}", started.elapsed());
    let mut groups = Value::Null;
    wait_until("every letter to be found", patience, async || {
        groups = cluster.get("dlq-admin", "/api/dlq/groups").await;
        groups["items"][0]["count"] == count
    })
    .await;
    eprintln!("{count} letters found after {:.1?}", started.elapsed());
    assert_eq!(groups["items"].as_array().map(Vec::len), Some(1), "all have the same trouble: {groups:#}");
    let mut letters = Vec::new();
    let mut page = cluster.get("dlq-admin", "/api/dlq/messages?limit=500").await;
    loop {
        letters.extend(page["items"].as_array().expect("items").clone());
        let Some(cursor) = page["nextCursor"].as_str() else { break };
        page = cluster.get("dlq-admin", &format!("/api/dlq/messages?limit=500&cursor={cursor}")).await;
    }
    let orders: BTreeSet<_> = letters.iter().map(|letter| letter["key"].to_string()).collect();
    assert_eq!((letters.len(), orders.len()), (count, count), "each is listed once");
    letters.iter().map(|letter| letter["id"].as_str().expect("an id").to_owned()).collect()
}

/// Every one of the `2 * count` orders is completed, once. What a death may have sent twice has one effect.
async fn assert_completed_once(cluster: &Cluster<'_>, count: usize, twice: usize) {
    let env = cluster.env();
    let expected = i64::try_from(2 * count).expect("a small number");
    let told = "SELECT count(*) FROM notifications";
    wait_until("everybody to be told", SOON, async || number(env, "notification", told).await >= expected).await;
    for (database, sql) in [
        ("notification", told),
        ("shipping", "SELECT count(*) FROM shipments WHERE state = 'SCHEDULED'"),
        ("orders", "SELECT count(*) FROM orders WHERE status = 'COMPLETED'"),
        ("payment", "SELECT count(*) FROM payments WHERE state = 'CHARGED'"),
    ] {
        assert_eq!(number(env, database, sql).await, expected, "{database}");
    }
    let sent = env.read_topic("shipping.requested").await.len();
    assert!((3 * count..=3 * count + twice).contains(&sent), "each letter was sent back once: {sent}");
    assert_clean(env).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_over_repaired_letters_ends_with_every_order_completed_once() {
    let count = count().min(EDITED);
    let env = Env::new("campaign").await;
    let cluster = env.cluster().set("orchestrator", "SAGAS_DIR", patient(&env)).start().await;
    poison(&env).await;
    let letters = poisoned(&cluster, count).await;
    let base = cluster.service("dlq-admin").url();
    stream::iter(&letters)
        .for_each_concurrent(8, async |letter| {
            let body = json!({ "payload": repaired(&cluster, letter).await });
            let put = cluster.client().put(format!("{base}/api/dlq/messages/{letter}")).json(&body);
            let response = put.send().await.expect("an answer");
            assert!(response.status().is_success(), "{}", response.text().await.unwrap_or_default());
        })
        .await;

    let campaign = ["dlq", "campaign", "start", "--topic", "shipping.requested", "--edited", "true", "--rate", "300"];
    let told = json_of(&symphony(&cluster, &[&campaign[..], &["--dry-run"]].concat()));
    assert_eq!((&told["matched"], &told["refused"]), (&json!(count), &json!(0)), "{told}");
    let done = json_of(&symphony(&cluster, &[&campaign[..], &["--watch"]].concat()));
    assert_eq!((&done["state"], &done["progress"]["reprocessed"]), (&json!("COMPLETED"), &json!(count)), "{done}");
    assert_completed_once(&cluster, count, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_cause_is_gone_a_campaign_completes_every_order_once_though_dlq_admin_dies_in_its_middle() {
    let count = count();
    let env = Env::new("redrive").await;
    // An order that is pending for long is published again, and its command with it: that would be another letter.
    let patience = 24 * 3_600_000;
    let cluster = env.cluster().set("orchestrator", "SAGAS_DIR", patient(&env));
    let cluster = cluster.set("order-api", "RECONCILER_PENDING_AFTER_MS", patience);
    let cluster = cluster.set("order-api", "RECONCILER_MAX_INTERVAL_MS", patience);
    // A saga that waits for its repair is in flight.
    let cluster = cluster.set("orchestrator", "SAGAS_MAX_IN_FLIGHT", 4 * count).start().await;
    poison(&env).await;
    poisoned(&cluster, count).await;
    sqlx::raw_sql("DROP TRIGGER no_carrier ON shipments").execute(&env.pool("shipping")).await.expect("no trigger");

    let started = Instant::now();
    let start = ["dlq", "campaign", "start", "--topic", "shipping.requested", "--rate", "1000"];
    let campaign = json_of(&symphony(&cluster, &start));
    let path = format!("/api/dlq/replays/{}", campaign["id"].as_str().expect("an id"));
    let patience = SOON + Duration::from_millis(100 * count as u64);
    let mut last = Value::Null;
    for part in [10, 3] {
        wait_until(&format!("a {part}th to be reprocessed"), patience, async || {
            last = cluster.get("dlq-admin", &path).await;
            last["progress"]["reprocessed"].as_u64() >= Some((count / part) as u64)
        })
        .await;
        cluster.service("dlq-admin").kill9().await;
        eprintln!("dlq-admin killed after {:.1?}: {}", started.elapsed(), last["progress"]);
        cluster.revive().await;
    }
    wait_until("the campaign to end", patience, async || {
        last = cluster.get("dlq-admin", &path).await;
        last["state"] != "RUNNING"
    })
    .await;
    eprintln!("the campaign ended after {:.1?}: {last}", started.elapsed());
    assert_eq!((&last["state"], &last["progress"]["reprocessed"]), (&json!("COMPLETED"), &json!(count)), "{last}");
    // Two deaths, and at most one part of a wave between its messages and their marks at each.
    assert_completed_once(&cluster, count, 40).await;
}
