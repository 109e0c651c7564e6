use std::sync::Arc;

use serde_json::{Value, json};
use testkit::wait_until;

use crate::support::{Desk, SOON, WORK, Worker, id, work};

/// `count` letters, of messages that can be processed now but for those in `still`.
async fn letters(desk: &Desk, worker: &Worker, count: usize, still: &[&str]) -> Vec<String> {
    let values: Vec<String> = (0..count).map(|n| format!("v-{n:03}")).collect();
    worker.fails_at(&values.iter().map(String::as_str).collect::<Vec<_>>());
    for value in &values {
        desk.env.send(work(value, value)).await;
    }
    desk.awaits("state=NEW", count).await;
    worker.fails_at(still);
    values
}

async fn awaits(desk: &Desk, campaign: &Value, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
    let path = format!("/api/dlq/replays/{}", id(campaign));
    let mut last = Value::Null;
    wait_until(&format!("the campaign to be {what}"), SOON, async || {
        last = desk.get(&path).await;
        condition(&last)
    })
    .await;
    last
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_grows_wave_by_wave_and_ends_when_all_is_reprocessed() {
    let desk = Desk::new(&[]).await;
    let worker = Arc::new(Worker::default());
    let member = worker.join(&desk.env);
    let values = letters(&desk, &worker, 40, &[]).await;
    let body = json!({ "filter": { "topic": "work", "reason": "cannot-work" }, "ratePerSecond": 200, "dryRun": true });
    let (status, told) = desk.post("/api/dlq/replays", body.clone()).await;
    assert_eq!((status, &told["matched"], &told["sendable"]), (200, &json!(40), &json!(40)), "{told}");
    assert!(desk.get("/api/dlq/replays").await["items"].as_array().is_some_and(Vec::is_empty), "a dry run is none");

    let mut body = body;
    body["dryRun"] = json!(false);
    let (status, campaign) = desk.post("/api/dlq/replays", body).await;
    assert_eq!(status, 202, "{campaign}");
    let done = awaits(&desk, &campaign, "completed", |campaign| campaign["state"] == "COMPLETED").await;
    assert_eq!(done["progress"]["reprocessed"], 40, "{done}");
    // 1, 2, 5, 20, and the rest.
    assert_eq!(done["wave"], 5);
    assert_eq!(worker.effects(), values);
    assert_eq!(desk.letters("state=REPROCESSED").await.len(), 40);
    let waves: Vec<i64> = sqlx::query_scalar("SELECT count(*) FROM campaign_item GROUP BY wave ORDER BY wave")
        .fetch_all(&desk.env.pool("dlq_admin"))
        .await
        .expect("waves");
    assert_eq!(waves, [1, 2, 5, 20, 12]);
    // No wave was sent before the one before it was processed.
    let late: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM campaign_item i JOIN campaign_item n ON n.wave = i.wave + 1
         JOIN letter_history d ON d.letter_id = i.letter_id AND d.event = 'REPROCESSED'
         JOIN letter_history s ON s.letter_id = n.letter_id AND s.event = 'REPLAYING' WHERE s.at < d.at",
    )
    .fetch_one(&desk.env.pool("dlq_admin"))
    .await
    .expect("a number");
    assert_eq!(late, 0);
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_stops_by_itself_when_too_much_fails_again() {
    let desk = Desk::new(&[]).await;
    let worker = Arc::new(Worker::default());
    let member = worker.join(&desk.env);
    let values: Vec<String> = (0..20).map(|n| format!("v-{n:03}")).collect();
    letters(&desk, &worker, 20, &values.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let body = json!({ "filter": {}, "ratePerSecond": 200, "maxFailureShare": 0.3 });
    let (_, campaign) = desk.post("/api/dlq/replays", body).await;
    let stopped = awaits(&desk, &campaign, "stopped", |campaign| campaign["state"] == "STOPPED").await;
    assert_eq!(stopped["progress"]["failedAgain"], 1, "{stopped}");
    assert!(stopped["reason"].as_str().is_some_and(|reason| reason.contains("failed again")), "{stopped}");
    assert_eq!(desk.env.read_topic(WORK).await.len(), 21, "nothing more was sent");
    let (status, _) = desk.post(&format!("/api/dlq/replays/{}/resume", id(&campaign)), json!({})).await;
    assert_eq!(status, 409);
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_waits_for_its_consumers_and_is_paused_resumed_and_cancelled() {
    let desk = Desk::new(&[]).await;
    let worker = Arc::new(Worker::default());
    let member = worker.join(&desk.env);
    letters(&desk, &worker, 10, &[]).await;
    member.stop().await;
    let (_, campaign) = desk.post("/api/dlq/replays", json!({ "filter": {}, "ratePerSecond": 200 })).await;
    let path = format!("/api/dlq/replays/{}", id(&campaign));
    let in_flight = |campaign: &Value| campaign["progress"]["inFlight"] == 1;
    awaits(&desk, &campaign, "waiting for its first message", in_flight).await;
    let (status, paused) = desk.post(&format!("{path}/pause"), json!({})).await;
    assert_eq!((status, &paused["state"]), (200, &json!("PAUSED")));
    assert_eq!(desk.post(&format!("{path}/pause"), json!({})).await.0, 409);
    let member = worker.join(&desk.env);
    awaits(&desk, &campaign, "settled", |campaign| campaign["progress"]["reprocessed"] == 1).await;
    assert_eq!(desk.get(&path).await["progress"]["waiting"], 9, "a paused campaign sends nothing");
    assert_eq!(desk.post(&format!("{path}/resume"), json!({})).await.0, 200);
    awaits(&desk, &campaign, "completed", |campaign| campaign["state"] == "COMPLETED").await;
    assert_eq!(desk.post(&format!("{path}/cancel"), json!({})).await.0, 409);

    letters(&desk, &worker, 10, &[]).await;
    member.stop().await;
    let (_, campaign) = desk.post("/api/dlq/replays", json!({ "filter": { "topic": "work" } })).await;
    awaits(&desk, &campaign, "waiting for its first message", in_flight).await;
    let path = format!("/api/dlq/replays/{}", id(&campaign));
    assert_eq!(desk.post(&format!("{path}/cancel"), json!({})).await.1["state"], "CANCELLED");
    assert_eq!(desk.letters("state=NEW").await.len(), 9, "what was not sent stays as it is");
    let (status, problem) = desk.post("/api/dlq/replays", json!({ "ratePerSecond": 0, "maxFailureShare": 2 })).await;
    assert_eq!((status, problem["errors"].as_array().map(Vec::len)), (422, Some(2)), "{problem}");
    assert_eq!(desk.post("/api/dlq/replays", json!({ "filter": { "script": "x" } })).await.0, 422);
}
