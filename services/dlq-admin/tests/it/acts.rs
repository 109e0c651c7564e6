use std::sync::Arc;

use messaging::Record;
use messaging::admin::{self, TopicSpec};
use serde_json::json;
use testkit::wait_until;

use crate::support::{Desk, SOON, WORK, Worker, answer, id, record, work};

#[tokio::test(flavor = "multi_thread")]
async fn two_operators_send_a_message_back_once_and_it_is_reprocessed() {
    let desk = Desk::new(&[]).await;
    let worker = Arc::new(Worker::default());
    worker.fails_at(&["bad"]);
    let member = worker.join(&desk.env);
    let sent = work("k-1", "bad");
    desk.env.send(sent.clone()).await;
    let letter = id(&desk.awaits("reason=cannot-work", 1).await[0]);
    worker.fails_at(&[]);

    let path = format!("/api/dlq/messages/{letter}/replay");
    let ask = |key: &'static str| answer(desk.request("POST", &path).header("Idempotency-Key", key));
    let (one, two, three) = tokio::join!(ask("one"), ask("two"), ask("three"));
    let mut answers = [&one, &two, &three];
    answers.sort_by_key(|(status, _)| *status);
    assert_eq!(answers.map(|(status, _)| *status), [202, 409, 409], "{answers:#?}");
    assert_eq!(answers[1].1["type"], "https://chaossymphony.dev/problems/wrong-state");
    let winner = ["one", "two", "three"][[&one, &two, &three].iter().position(|a| a.0 == 202).expect("a winner")];
    let again = answer(desk.request("POST", &path).header("Idempotency-Key", winner)).await;
    assert_eq!((again.0, &again.1["replayId"]), (202, &answers[0].1["replayId"]));

    let done = desk.reaches(&letter, "REPROCESSED").await;
    assert_eq!(worker.effects(), ["bad"]);
    let messages = desk.env.read_topic(WORK).await;
    assert_eq!(messages.len(), 2, "sent once");
    let replay = &messages[1];
    assert_eq!((&replay.key, &replay.payload), (&messages[0].key, &messages[0].payload));
    assert_eq!(replay.partition, messages[0].partition);
    assert_eq!(replay.header("dlq-replay-id"), done["replayId"].as_str());
    let rest: Vec<_> = replay.headers.iter().filter(|(name, _)| name != "dlq-replay-id").cloned().collect();
    assert_eq!(rest, messages[0].headers, "all original headers, and none of the letter");
    let history: Vec<_> = done["history"].as_array().expect("events").iter().map(|e| e["event"].clone()).collect();
    assert_eq!(history, ["REPLAYING", "SENT", "REPROCESSED"]);
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replaying_one_message_twice_from_two_clients_at_once_has_one_effect_and_one_answer() {
    let desk = Desk::new(&[]).await;
    let worker = Arc::new(Worker::default());
    let values = ["with-a-key", "without-a-key"];
    worker.fails_at(&values);
    let member = worker.join(&desk.env);
    for value in values {
        desk.env.send(work(value, value)).await;
    }
    desk.awaits("reason=cannot-work", 2).await;
    worker.fails_at(&[]);
    for value in values {
        let letter = id(&desk.letters(&format!("key={value}")).await[0]);
        let path = format!("/api/dlq/messages/{letter}/replay");
        let ask = || {
            let request = desk.request("POST", &path);
            answer(if value == "with-a-key" { request.header("Idempotency-Key", "one") } else { request })
        };
        let (one, two) = tokio::join!(ask(), ask());
        assert_eq!((one.0, two.0), (202, 202), "{value}: {one:?} {two:?}");
        assert_eq!(one.1["replayId"], two.1["replayId"], "{value}");
        desk.reaches(&letter, "REPROCESSED").await;
        let audit = desk.get(&format!("/api/dlq/audit?messageId={letter}")).await;
        assert_eq!(audit["items"].as_array().map(Vec::len), Some(2), "{value}: both are recorded: {audit:#}");
    }
    assert_eq!(worker.effects(), values);
    assert_eq!(desk.env.read_topic(WORK).await.len(), 4, "each was sent once");
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_goes_back_to_another_topic_than_that_of_its_dead_letters() {
    let desk = Desk::new(&[("REPLAY_FOREIGN_TARGETS", "export")]).await;
    desk.env.create_topics(&["other", "export", "chaos.faults", "chaos.faults.dlq"], 1).await;
    let ours = |topic: &str| {
        record(b"k", b"v", &[("dlq-topic", topic.as_bytes()), ("dlq-partition", b"0"), ("dlq-offset", b"1")])
    };
    let connect = |topic: &str| {
        let headers: &[(&str, &[u8])] = &[
            ("__connect.errors.topic", topic.as_bytes()),
            ("__connect.errors.partition", b"0"),
            ("__connect.errors.offset", b"2"),
        ];
        record(b"k", b"v", headers)
    };
    let letters = [ours("other"), ours("__consumer_offsets"), ours("work.dlq"), connect("other"), connect("export")];
    desk.produce("work.dlq", &letters).await;
    desk.produce("chaos.faults.dlq", &[ours("chaos.faults")]).await;
    let letters = desk.awaits("", 6).await;
    for letter in &letters {
        let (topic, path) = (&letter["topic"], format!("/api/dlq/messages/{}", id(letter)));
        let allowed = topic == "export";
        let (status, problem) = desk.put(&path, json!({ "payload": "w" })).await;
        assert_eq!(status, if allowed { 200 } else { 409 }, "{topic}: {problem}");
        let (status, problem) = desk.post(&format!("{path}/replay"), json!({})).await;
        assert_eq!(status, if allowed { 202 } else { 409 }, "{topic}: {problem}");
        if !allowed {
            assert_eq!(problem["type"], "https://chaossymphony.dev/problems/forbidden-target", "{topic}");
        }
    }
    let (_, told) = desk.post("/api/dlq/replays", json!({ "dryRun": true })).await;
    assert_eq!((&told["matched"], &told["refused"]), (&json!(5), &json!(5)), "{told}");
    assert_eq!(told["refusals"][0]["reason"], "forbidden-target");
    let (_, campaign) = desk.post("/api/dlq/replays", json!({ "ratePerSecond": 100 })).await;
    wait_until("the campaign to refuse them", SOON, async || {
        let campaign = desk.get(&format!("/api/dlq/replays/{}", id(&campaign))).await;
        campaign["state"] == "COMPLETED" && campaign["progress"]["refused"] == 5
    })
    .await;
    assert!(desk.env.read_topic("other").await.is_empty() && desk.env.read_topic("chaos.faults").await.is_empty());
    assert_eq!(desk.env.read_topic("export").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_again_is_a_new_letter_that_knows_its_replay() {
    let desk = Desk::new(&[]).await;
    let worker = Arc::new(Worker::default());
    worker.fails_at(&["bad"]);
    let member = worker.join(&desk.env);
    desk.env.send(work("k-1", "bad")).await;
    let first = id(&desk.awaits("", 1).await[0]);
    let (status, body) = desk.post(&format!("/api/dlq/messages/{first}/replay"), json!({})).await;
    assert_eq!(status, 202, "{body}");
    let old = desk.reaches(&first, "FAILED_AGAIN").await;
    let new = &desk.awaits("state=NEW", 1).await[0];
    assert_eq!((&old["failedAs"], &new["replayOf"]), (&new["id"], &old["id"]));
    let (status, _) = desk.post(&format!("/api/dlq/messages/{first}/replay"), json!({})).await;
    assert_eq!(status, 409, "the new letter is the one to act on");
    worker.fails_at(&[]);
    desk.post(&format!("/api/dlq/messages/{}/replay", id(new)), json!({})).await;
    desk.reaches(&id(new), "REPROCESSED").await;
    assert_eq!(worker.effects(), ["bad"]);
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edited_message_is_sent_instead_of_the_original_and_never_both() {
    let desk = Desk::new(&[]).await;
    let worker = Arc::new(Worker::default());
    worker.fails_at(&["bad"]);
    let member = worker.join(&desk.env);
    desk.env.send(work("k-1", "bad")).await;
    let letter = id(&desk.awaits("", 1).await[0]);
    let path = format!("/api/dlq/messages/{letter}");
    for text in ["\"worse\"", "\"good\""] {
        let (status, body) = desk.put(&path, json!({ "payload": text, "headers": { "x-fixed": "yes" } })).await;
        assert_eq!((status, &body["edited"]), (200, &json!(true)), "{body}");
    }
    let (status, body) = desk.put(&path, json!({ "headers": { "dlq-topic": "elsewhere" } })).await;
    assert_eq!((status, &body["errors"][0]["pointer"]), (422, &json!("/headers/dlq-topic")));
    desk.post(&format!("{path}/replay"), json!({})).await;
    let done = desk.reaches(&letter, "REPROCESSED").await;
    assert_eq!(worker.effects(), ["good"]);
    let messages = desk.env.read_topic(WORK).await;
    let values: Vec<_> = messages.iter().map(|m| m.payload.clone().expect("a value")).collect();
    assert_eq!(values, [b"\"bad\"".to_vec(), b"\"good\"".to_vec()]);
    assert_eq!(messages[1].header("ce_id"), messages[0].header("ce_id"));
    assert_eq!(messages[1].header("x-fixed"), Some("yes"));
    assert_eq!((&done["payload"]["text"], &done["edit"]["payload"]["text"]), (&json!("\"bad\""), &json!("\"good\"")));
    let (status, _) = desk.put(&path, json!({ "payload": "\"late\"" })).await;
    assert_eq!(status, 409);
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_discarded_is_never_sent_and_refusals_are_in_the_audit_for_ever() {
    let desk = Desk::new(&[]).await;
    desk.produce("work.dlq", &[record(b"k", b"v", &[]), record(b"k", b"w", &[("dlq-truncated-from", b"99")])]).await;
    let letters = desk.awaits("", 2).await;
    let (cut, letter) = (id(&letters[0]), id(&letters[1]));
    let path = format!("/api/dlq/messages/{letter}");
    for body in [json!({ "reason": " " }), json!({ "why": "a test" })] {
        let (status, _) = desk.post(&format!("{path}/discard"), body).await;
        assert_eq!(status, 422);
    }
    let (status, body) = desk.post(&format!("{path}/discard"), json!({ "reason": "a test" })).await;
    assert_eq!((status, &body["state"]), (200, &json!("DISCARDED")), "{body}");
    for (act, body) in [("replay", json!({})), ("discard", json!({ "reason": "again" }))] {
        let (status, body) = desk.post(&format!("{path}/{act}"), body).await;
        assert_eq!(status, 409, "{act}: {body}");
    }
    let (status, problem) = desk.post(&format!("/api/dlq/messages/{cut}/replay"), json!({})).await;
    assert_eq!((status, &problem["type"]), (409, &json!("https://chaossymphony.dev/problems/truncated-letter")));
    let (status, _) = desk.post("/api/dlq/messages/5b2f4f4e-6a0a-5d7b-9a57-0d7f2f3a4b5c/replay", json!({})).await;
    assert_eq!(status, 404);
    assert!(desk.env.read_topic(WORK).await.is_empty());

    let audit = desk.get(&format!("/api/dlq/audit?messageId={letter}")).await;
    let told: Vec<_> = audit["items"].as_array().expect("items").iter().map(|e| (&e["act"], &e["result"])).collect();
    let expected = [
        ("discard", "refused"),
        ("replay", "refused"),
        ("discard", "done"),
        ("discard", "refused"),
        ("discard", "refused"),
    ]
    .map(|(act, result)| (json!(act), json!(result)));
    assert_eq!(told, expected.iter().map(|(a, r)| (a, r)).collect::<Vec<_>>());
    assert_eq!(
        (&audit["items"][2]["actor"], &audit["items"][2]["arguments"]["reason"]),
        (&json!("ada"), &json!("a test"))
    );
    for pool in [desk.env.role_pool("dlq_admin"), desk.env.pool("dlq_admin")] {
        for change in ["UPDATE audit SET actor = 'eve'", "DELETE FROM audit", "TRUNCATE audit"] {
            let error = sqlx::query(change).execute(&pool).await.expect_err(change);
            let code = error.as_database_error().and_then(|error| error.code().map(|code| code.into_owned()));
            assert_eq!(code.as_deref(), Some("42501"), "{change}: {error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_topic_is_gone_stays_where_it_is() {
    let desk = Desk::new(&[("KAFKA_MESSAGE_TIMEOUT_MS", "8000")]).await;
    desk.env.create_topics(&["gone.dlq"], 1).await;
    let headers: &[(&str, &[u8])] = &[("dlq-topic", b"gone"), ("dlq-partition", b"0"), ("dlq-offset", b"0")];
    desk.produce("gone.dlq", &[record(b"k", b"v", headers)]).await;
    let letter = id(&desk.awaits("topic=gone", 1).await[0]);
    let (status, body) = desk.post(&format!("/api/dlq/messages/{letter}/replay"), json!({})).await;
    assert_eq!((status, &body["type"]), (422, &json!("https://chaossymphony.dev/problems/not-sendable")), "{body}");
    desk.reaches(&letter, "NEW").await;
    let metrics = async || {
        let text = reqwest::get(desk.url("/metrics")).await.expect("an answer").text().await.expect("text");
        text.contains("dlq_refusals_total{act=\"replay\",reason=\"not-sendable\"} 1")
            && text.contains("dlq_letters{state=\"NEW\",topic=\"gone\"} 1")
    };
    wait_until("the metrics to tell", SOON, metrics).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_broker_takes_is_new_again_with_the_cause() {
    let desk = Desk::new(&[]).await;
    let kafka = desk.env.kafka();
    let spec = |name: &str, key: &str, value: &str| TopicSpec {
        name: kafka.topic(name),
        partitions: 1,
        replication: 1,
        config: [(key.to_owned(), value.to_owned())].into(),
    };
    // Compacted, it takes nothing without a key.
    let topics = [spec("keyed", "cleanup.policy", "compact"), spec("small", "max.message.bytes", "1000")];
    admin::create_topics(&kafka.bootstrap_servers, &topics).await.expect("they are made");
    desk.env.create_topics(&["keyed.dlq", "small.dlq"], 1).await;
    desk.produce("keyed.dlq", &[Record { key: None, ..record(b"", b"v", &[]) }]).await;
    let noise: String = (0..200).map(|_| uuid::Uuid::new_v4().to_string()).collect();
    desk.produce("small.dlq", &[record(b"k", noise.as_bytes(), &[])]).await;
    for topic in ["keyed", "small"] {
        let letter = id(&desk.awaits(&format!("topic={topic}"), 1).await[0]);
        let (status, body) = desk.post(&format!("/api/dlq/messages/{letter}/replay"), json!({})).await;
        assert_eq!((status, &body["type"]), (422, &json!("https://chaossymphony.dev/problems/not-sendable")), "{body}");
        let letter = desk.reaches(&letter, "NEW").await;
        let last = letter["history"].as_array().and_then(|history| history.last()).expect("steps");
        assert_eq!(last["event"], "NOT_SENT", "{letter:#}");
        assert!(last["detail"].as_str().is_some_and(|detail| detail.contains(topic)), "{letter:#}");
    }
    let topics = topics.map(|topic| topic.name);
    let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    admin::delete_topics(&kafka.bootstrap_servers, &topics).await.expect("they are deleted");
}
