//! Dead letters, from the poison to the order's end.

use std::process::{Command, Output};
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use serde_json::{Value, json};
use testkit::{Cluster, Env, order_with, wait_until};

use crate::stand::{SOON, assert_clean, data_dir, impatient, number, placed};

/// Poisoned orders of the campaign, unless `DEAD_LETTERS` says another number; as many good ones beside them.
const LETTERS: usize = 300;

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
    impatient(env, &[("  deadline: 15s\n  attempts: 4", "  deadline: 300s\n  attempts: 4")])
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
    assert_clean(&env).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_over_repaired_letters_ends_with_every_order_completed_once() {
    let count = std::env::var("DEAD_LETTERS").ok().and_then(|count| count.parse().ok()).unwrap_or(LETTERS);
    let env = Env::new("campaign").await;
    let cluster = env.cluster().set("orchestrator", "SAGAS_DIR", patient(&env)).start().await;
    poison(&env).await;
    let bad = order_with("/shipping/city", "Nowhere");
    let placing = stream::iter(0..count).map(|_| cluster.place(&bad)).buffer_unordered(16).collect::<Vec<_>>();
    let (orders, good) = tokio::join!(placing, placed(&cluster, count as u64, 16, ""));
    assert_eq!(good.statuses.get("COMPLETED"), Some(&(count as u64)), "{good}");

    let mut groups = Value::Null;
    wait_until("every letter to be found", Duration::from_secs(120), async || {
        groups = cluster.get("dlq-admin", "/api/dlq/groups").await;
        groups["items"][0]["count"] == count
    })
    .await;
    assert_eq!(groups["items"].as_array().map(Vec::len), Some(1), "all have the same trouble: {groups:#}");
    let mut letters = Vec::new();
    let mut page = cluster.get("dlq-admin", "/api/dlq/messages?limit=500").await;
    loop {
        letters.extend(page["items"].as_array().expect("items").iter().map(|letter| letter["id"].clone()));
        let Some(cursor) = page["nextCursor"].as_str() else { break };
        page = cluster.get("dlq-admin", &format!("/api/dlq/messages?limit=500&cursor={cursor}")).await;
    }
    assert_eq!(letters.len(), count);
    let base = cluster.service("dlq-admin").url();
    stream::iter(&letters)
        .for_each_concurrent(8, async |letter| {
            let letter = letter.as_str().expect("an id");
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
    for order in &orders {
        assert_eq!(cluster.ended(*order, SOON).await["status"], "COMPLETED", "{order}");
    }
    let expected = i64::try_from(2 * count).expect("a small number");
    for (database, sql) in [
        ("shipping", "SELECT count(*) FROM shipments WHERE state = 'SCHEDULED'"),
        ("orders", "SELECT count(*) FROM orders WHERE status = 'COMPLETED'"),
        ("payment", "SELECT count(*) FROM payments WHERE state = 'CHARGED'"),
    ] {
        assert_eq!(number(&env, database, sql).await, expected, "{database}");
    }
    let told = "SELECT count(*) FROM notifications";
    wait_until("everybody to be told", SOON, async || number(&env, "notification", told).await == expected).await;
    assert_eq!(env.read_topic("shipping.requested").await.len(), 3 * count, "each letter was sent back once");
    assert_clean(&env).await;
}
