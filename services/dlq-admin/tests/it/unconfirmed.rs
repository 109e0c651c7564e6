//! Replays of which nobody can say what became of them.

use std::sync::Arc;

use serde_json::{Value, json};
use testkit::wait_until;

use crate::support::{Desk, SOON, WORK, Worker, id, record, work};

/// As short as the broker's patience allows.
const HASTY: [(&str, &str); 3] =
    [("KAFKA_MESSAGE_TIMEOUT_MS", "1000"), ("REPLAY_CLAIM_MS", "1500"), ("REPLAY_CONFIRM_WITHIN_MS", "2000")];

fn letter(offset: &str, group: &str) -> messaging::Record {
    let headers: &[(&str, &[u8])] = &[
        ("ce_id", b"5b2f4f4e-6a0a-5d7b-9a57-0d7f2f3a4b5c"),
        ("dlq-topic", b"work"),
        ("dlq-partition", b"0"),
        ("dlq-offset", offset.as_bytes()),
        ("dlq-consumer-group", group.as_bytes()),
    ];
    record(b"k", b"v", headers)
}

async fn replay(desk: &Desk, id: &str) -> Value {
    let (status, letter) = desk.post(&format!("/api/dlq/messages/{id}/replay"), json!({})).await;
    assert_eq!(status, 202, "{letter}");
    letter
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_of_a_group_that_is_gone_is_shown_as_unconfirmed_and_an_operator_settles_it() {
    let desk = Desk::new(&HASTY).await;
    desk.produce("work.dlq", &[letter("1", "nobody"), letter("2", "nobody"), letter("3", "")]).await;
    let letters: Vec<String> = desk.awaits("", 3).await.iter().map(id).collect();
    for letter in &letters {
        replay(&desk, letter).await;
    }
    for letter in &letters {
        desk.reaches(letter, "UNCONFIRMED").await;
    }
    // The same message once more, with the same id.
    let (once, again) =
        (desk.get(&format!("/api/dlq/messages/{}", letters[0])).await, replay(&desk, &letters[0]).await);
    assert_eq!((&once["replayId"], &once["replays"]), (&again["replayId"], &again["replays"]));
    let (status, _) = desk.put(&format!("/api/dlq/messages/{}", letters[1]), json!({ "payload": "w" })).await;
    assert_eq!(status, 409, "an edit would send both");
    let path = format!("/api/dlq/messages/{}/discard", letters[1]);
    assert_eq!(desk.post(&path, json!({ "reason": "the group is gone" })).await.0, 200);
    let copies = desk.env.read_topic(WORK).await;
    let ids: Vec<_> = copies.iter().map(|copy| copy.header("dlq-replay-id").map(str::to_owned)).collect();
    assert_eq!(ids.iter().filter(|id| id.as_deref() == once["replayId"].as_str()).count(), 2, "{ids:?}");
    assert_eq!(copies.len(), 4);

    // A campaign does not wait for ever either.
    desk.produce("work.dlq", &[letter("4", "nobody"), letter("5", "nobody")]).await;
    desk.awaits("state=NEW", 2).await;
    let (_, campaign) = desk.post("/api/dlq/replays", json!({ "ratePerSecond": 100 })).await;
    let mut last = Value::Null;
    wait_until("the campaign to stop", SOON, async || {
        last = desk.get(&format!("/api/dlq/replays/{}", id(&campaign))).await;
        last["state"] == "STOPPED"
    })
    .await;
    assert_eq!((&last["progress"]["unconfirmed"], &last["progress"]["waiting"]), (&json!(1), &json!(1)), "{last}");
    assert!(last["reason"].as_str().is_some_and(|reason| reason.contains("not confirmed")), "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_comes_back_late_still_confirms() {
    let desk = Desk::new(&HASTY).await;
    let worker = Arc::new(Worker::default());
    worker.fails_at(&["bad"]);
    let member = worker.join(&desk.env);
    desk.env.send(work("k-1", "bad")).await;
    let letter = id(&desk.awaits("", 1).await[0]);
    worker.fails_at(&[]);
    member.stop().await;
    replay(&desk, &letter).await;
    desk.reaches(&letter, "UNCONFIRMED").await;
    let member = worker.join(&desk.env);
    desk.reaches(&letter, "REPROCESSED").await;
    assert_eq!(worker.effects(), ["bad"]);
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_without_a_group_has_failed_again_when_a_letter_carries_its_replay() {
    let desk = Desk::new(&[]).await;
    desk.produce("work.dlq", &[letter("1", "")]).await;
    let first = id(&desk.awaits("", 1).await[0]);
    let sent = replay(&desk, &first).await;
    let replay_id = sent["replayId"].as_str().expect("an id").to_owned();
    let mut second = letter("2", "somebody");
    second.headers.push(("dlq-replay-id".into(), Some(replay_id.into_bytes())));
    desk.produce("work.dlq", &[second]).await;
    let old = desk.reaches(&first, "FAILED_AGAIN").await;
    let new = &desk.awaits("state=NEW", 1).await[0];
    assert_eq!((&old["failedAs"], &new["replayOf"]), (&new["id"], &old["id"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_have_been_sent_before_is_not_new_again_when_its_topic_is_gone() {
    let mut desk = Desk::new(&[("KAFKA_MESSAGE_TIMEOUT_MS", "8000"), ("REPLAY_CLAIM_MS", "9000")]).await;
    desk.env.create_topics(&["brief", "brief.dlq"], 1).await;
    let headers: &[(&str, &[u8])] = &[("dlq-topic", b"brief"), ("dlq-partition", b"0"), ("dlq-offset", b"0")];
    desk.produce("brief.dlq", &[record(b"k", b"v", headers)]).await;
    let letter = id(&desk.awaits("topic=brief", 1).await[0]);
    desk.service.stop().await;
    desk.service.set_env("FAILPOINT", "replay-after-produce");
    desk.service.set_env("FAILPOINT_FIRED", &desk.env.dir().join("sent").display().to_string());
    desk.service.start().await;
    let lost = desk.request("POST", &format!("/api/dlq/messages/{letter}/replay")).send().await;
    assert!(lost.is_err(), "{lost:?}");
    desk.service.wait_exit(SOON).await;
    let kafka = desk.env.kafka();
    let topic = kafka.topic("brief");
    messaging::admin::delete_topics(&kafka.bootstrap_servers, &[&topic]).await.expect("it is deleted");
    desk.service.start().await;
    let letter = desk.reaches(&letter, "UNCONFIRMED").await;
    assert!(letter["replayId"].is_string(), "{letter:#}");
    let last = letter["history"].as_array().and_then(|history| history.last()).expect("steps");
    assert_eq!(last["event"], "NOT_SENT", "{letter:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_its_topic_has_lost_is_unconfirmed_and_not_taken_for_what_comes_at_its_place() {
    let desk = Desk::new(&[]).await;
    desk.env.create_topics(&["brief", "brief.dlq"], 1).await;
    let headers: &[(&str, &[u8])] = &[
        ("dlq-topic", b"brief"),
        ("dlq-partition", b"0"),
        ("dlq-offset", b"0"),
        ("dlq-consumer-group", b"nobody-yet"),
    ];
    desk.produce("brief.dlq", &[record(b"k", b"v", headers)]).await;
    let letter = id(&desk.awaits("topic=brief", 1).await[0]);
    replay(&desk, &letter).await;
    let sent = desk.reaches(&letter, "SENT").await;
    let kafka = desk.env.kafka();
    let topic = kafka.topic("brief");
    messaging::admin::delete_topics(&kafka.bootstrap_servers, &[&topic]).await.expect("it is deleted");
    wait_until("the topic to be gone", SOON, async || {
        let topics = messaging::admin::list_topics(&kafka.bootstrap_servers).await.expect("the topics");
        !topics.contains_key(&topic)
    })
    .await;
    desk.env.create_topics(&["brief"], 1).await;
    let lost = desk.reaches(&letter, "UNCONFIRMED").await;
    let last = lost["history"].as_array().and_then(|history| history.last()).expect("steps");
    assert!(last["detail"].as_str().is_some_and(|detail| detail.contains("not on its topic")), "{lost:#}");
    // Whatever anybody does there now says nothing of it. An operator sends the same message again.
    let again = replay(&desk, &letter).await;
    assert_eq!(again["replayId"], sent["replayId"]);
}
