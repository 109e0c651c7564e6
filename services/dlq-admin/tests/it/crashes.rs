use std::sync::Arc;

use serde_json::json;

use crate::support::{Desk, SOON, WORK, Worker, id, work};

/// As short as the broker's patience allows.
const HASTY: [(&str, &str); 3] =
    [("KAFKA_MESSAGE_TIMEOUT_MS", "2000"), ("REPLAY_CLAIM_MS", "2500"), ("CAMPAIGN_LEASE_MS", "1000")];

#[tokio::test(flavor = "multi_thread")]
async fn a_death_before_or_after_the_message_is_out_leads_to_the_same_replay_again() {
    for (point, copies) in [("replay-before-produce", 1), ("replay-after-produce", 2)] {
        let mut desk = Desk::new(&HASTY).await;
        let worker = Arc::new(Worker::default());
        worker.fails_at(&["bad"]);
        let member = worker.join(&desk.env);
        desk.env.send(work("k-1", "bad")).await;
        let letter = id(&desk.awaits("", 1).await[0]);
        worker.fails_at(&[]);
        desk.service.stop().await;
        let fired = desk.env.dir().join(point);
        desk.service.set_env("FAILPOINT", point);
        desk.service.set_env("FAILPOINT_FIRED", &fired.display().to_string());
        desk.service.start().await;
        let lost = desk.request("POST", &format!("/api/dlq/messages/{letter}/replay")).send().await;
        assert!(lost.is_err(), "{point}: {lost:?}");
        assert!(fired.exists(), "{point} was never reached");
        desk.service.wait_exit(SOON).await;
        desk.service.start().await;

        let done = desk.reaches(&letter, "REPROCESSED").await;
        let messages = desk.env.read_topic(WORK).await;
        assert_eq!(messages.len(), 1 + copies, "{point}");
        for replay in &messages[1..] {
            assert_eq!(replay.header("dlq-replay-id"), done["replayId"].as_str(), "{point}");
        }
        assert_eq!(worker.effects(), ["bad"], "{point}: one effect");
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_survives_the_death_of_its_replica_and_sends_each_message_once() {
    let mut desk = Desk::new(&HASTY).await;
    let worker = Arc::new(Worker::default());
    let values: Vec<String> = (0..30).map(|n| format!("bad-{n:02}")).collect();
    let names: Vec<&str> = values.iter().map(String::as_str).collect();
    worker.fails_at(&names);
    let member = worker.join(&desk.env);
    let messages: Vec<_> = values.iter().map(|value| work(value, value)).collect();
    desk.env.send_all(&messages).await;
    desk.awaits("", 30).await;
    worker.fails_at(&[]);
    desk.service.stop().await;
    desk.service.set_env("FAILPOINT", "campaign-wave:4");
    desk.service.set_env("FAILPOINT_FIRED", &desk.env.dir().join("wave").display().to_string());
    desk.service.start().await;
    let (status, campaign) =
        desk.post("/api/dlq/replays", json!({ "filter": { "topic": "work" }, "ratePerSecond": 500 })).await;
    assert_eq!(status, 202, "{campaign}");
    desk.service.wait_exit(SOON).await.expect("it died");
    // Two replicas, of which one goes on.
    let other = desk.env.start_service("dlq-admin", &HASTY).await;
    desk.service.start().await;
    let path = format!("/api/dlq/replays/{}", id(&campaign));
    let mut last = json!(null);
    testkit::wait_until("the campaign to end", SOON, async || {
        last = desk.get(&path).await;
        last["state"] == "COMPLETED"
    })
    .await;
    assert_eq!((&last["progress"]["reprocessed"], &last["progress"]["total"]), (&json!(30), &json!(30)), "{last}");
    assert_eq!(worker.effects(), values);
    assert_eq!(desk.env.read_topic(WORK).await.len(), 60, "each was sent once");
    drop(other);
    member.stop().await;
}
