use messaging::Record;
use serde_json::json;

use crate::support::{Desk, answer, id, record};

const NUMBERS: (i32, i64) = (1, 5_000_000_000);

fn ours(offset: &str) -> Record {
    record(
        b"o-1",
        b"{\"orderId\":",
        &[
            ("ce_id", b"5b2f4f4e-6a0a-5d7b-9a57-0d7f2f3a4b5c"),
            ("dlq-topic", b"work"),
            ("dlq-partition", b"1"),
            ("dlq-offset", offset.as_bytes()),
            ("dlq-timestamp", b"1795255200000"),
            ("dlq-consumer-group", b"worker"),
            ("dlq-reason", b"invalid-json"),
            ("dlq-error", format!("invalid-json: line 1 column {offset}").as_bytes()),
            ("dlq-attempts", b"1"),
            ("dlq-first-failed-at", b"2026-11-21T10:00:00.000Z"),
        ],
    )
}

#[tokio::test]
async fn letters_of_every_format_are_found_in_one_form() {
    let desk = Desk::new(&[]).await;
    let spring = record(
        b"o-2",
        b"two",
        &[
            ("kafka_dlt-original-topic", b"billing"),
            ("kafka_dlt-original-partition", &NUMBERS.0.to_be_bytes()),
            ("kafka_dlt-original-offset", &NUMBERS.1.to_be_bytes()),
            ("kafka_dlt-original-timestamp", &1_795_255_200_000_i64.to_be_bytes()),
            ("kafka_dlt-original-consumer-group", b"biller"),
            ("kafka_dlt-exception-fqcn", b"java.lang.IllegalStateException"),
            ("kafka_dlt-exception-message", b"no account"),
        ],
    );
    let connect = record(
        b"o-3",
        b"three",
        &[
            ("__connect.errors.topic", b"export"),
            ("__connect.errors.partition", b"3"),
            ("__connect.errors.offset", b"9"),
            ("__connect.errors.connector.name", b"sink"),
            ("__connect.errors.exception.class.name", b"org.apache.kafka.connect.errors.DataException"),
            ("__connect.errors.exception.message", b"no schema"),
        ],
    );
    let raw = record(b"\0\xffkey", b"\0\x01", &[("h\u{e9}", b"\xff"), ("nul", b"a\0b")]);
    desk.produce("work.dlq", &[ours("5"), spring, connect, raw]).await;
    desk.awaits("", 4).await;

    let one = &desk.letters("topic=work&group=worker&reason=invalid-json&state=NEW&key=o-1").await[0];
    for (name, value) in [
        ("partition", json!(1)),
        ("offset", json!(5)),
        ("keyBase64", json!("by0x")),
        ("attempts", json!(1)),
        ("sourceFormat", json!("symphony")),
        ("timestamp", json!("2026-11-21T10:00:00Z")),
        ("firstFailedAt", json!("2026-11-21T10:00:00Z")),
    ] {
        assert_eq!(one[name], value, "{name}: {one:#}");
    }
    assert!(one.get("payload").is_none(), "lists have no bodies");
    let two = &desk.letters("topic=billing").await[0];
    assert_eq!((&two["partition"], &two["offset"]), (&json!(NUMBERS.0), &json!(NUMBERS.1)));
    assert_eq!((&two["group"], &two["reason"]), (&json!("biller"), &json!("IllegalStateException")));
    let three = &desk.letters("group=connect-sink").await[0];
    assert_eq!((&three["topic"], &three["reason"]), (&json!("export"), &json!("DataException")));

    let four = &desk.letters("reason=unknown").await[0];
    assert_eq!((&four["topic"], &four["group"], &four["sourceFormat"]), (&json!("work"), &json!(""), &json!("raw")));
    let detail = desk.get(&format!("/api/dlq/messages/{}", id(four))).await;
    assert_eq!(detail["payload"], json!({ "hex": "0001", "text": "\0\u{1}" }));
    assert_eq!(detail["key"], "\0\u{fffd}key");
    assert_eq!(detail["headers"][0], json!({ "name": "h\u{e9}", "base64": "/w==" }));
    assert_eq!(desk.letters("key=%EF%BF%BD%EF%BF%BDkey").await.len(), 1, "what is no text is found by its replacement");
    let (status, problem) = answer(desk.request("GET", "/api/dlq/messages?key=%00")).await;
    assert_eq!((status, &problem["errors"][0]["parameter"]), (400, &json!("key")), "{problem}");
}

#[tokio::test]
async fn the_same_letter_twice_is_one_and_groups_count_what_differs_in_numbers_only() {
    let desk = Desk::new(&[]).await;
    desk.produce("work.dlq", &[ours("5"), ours("5"), ours("6"), ours("7"), ours("5")]).await;
    desk.awaits("", 3).await;
    let groups = desk.get("/api/dlq/groups?topic=work").await;
    let groups = groups["items"].as_array().expect("items");
    assert_eq!(groups.len(), 1, "{groups:#?}");
    assert_eq!((&groups[0]["count"], &groups[0]["reason"]), (&json!(3), &json!("invalid-json")));
    let fingerprint = groups[0]["fingerprint"].as_str().expect("text");
    assert_eq!(desk.letters(&format!("fingerprint={fingerprint}")).await.len(), 3);

    // The service killed and everything read again: still one each.
    desk.service.kill9().await;
    let kafka = desk.env.kafka();
    let rewound = async || {
        let topics = [kafka.topic("work.dlq")];
        messaging::admin::rewind_group(&kafka.bootstrap_servers, &kafka.group("dlq-admin"), &topics).await.is_ok()
    };
    testkit::wait_until("the group to be empty", crate::support::SOON, rewound).await;
    desk.service.start().await;
    desk.produce("work.dlq", &[ours("8")]).await;
    desk.awaits("", 4).await;
    let mut pages = Vec::new();
    let mut page = desk.get("/api/dlq/messages?limit=3").await;
    loop {
        pages.extend(page["items"].as_array().expect("items").iter().map(|letter| letter["offset"].clone()));
        let Some(cursor) = page["nextCursor"].as_str() else { break };
        page = desk.get(&format!("/api/dlq/messages?limit=3&cursor={cursor}")).await;
    }
    assert_eq!(pages[0], 8, "the newest first");
    assert_eq!(pages.len(), 4);
}

#[tokio::test]
async fn a_topic_that_is_made_later_is_found_and_large_letters_are_kept_whole() {
    let desk = Desk::new(&[]).await;
    desk.env.create_topics(&["late.dlq"], 1).await;
    let large = vec![b'x'; 3_000_000];
    let large = Record { payload: Some(large), ..ours("1") };
    // Compressed it is small enough for the topic.
    let kafka = desk.env.kafka();
    let producer = messaging::Producer::new(&kafka, "test").expect("a producer");
    producer.send(&Record { topic: "late.dlq".into(), ..large }).await.expect("it is sent");
    desk.produce("late.dlq", &[record(b"k", b"v", &[])]).await;
    let letters = desk.awaits("", 2).await;
    let large = letters.iter().find(|letter| letter["topic"] == "work").expect("the large one");
    assert_eq!(large["size"], 3_000_000);
    let detail = desk.get(&format!("/api/dlq/messages/{}", id(large))).await;
    assert_eq!(detail["payload"]["text"].as_str().map(str::len), Some(64 * 1024), "the start is shown");
    assert_eq!(detail["payload"]["cut"], true);
    let path = format!("/api/dlq/messages/{}/bytes", id(large));
    let whole = desk.request("GET", &path).send().await.expect("an answer").bytes().await.expect("bytes");
    assert_eq!(whole.len(), 3_000_000);
    let key = desk.request("GET", &format!("{path}?part=key")).send().await.expect("an answer");
    assert_eq!(key.bytes().await.expect("bytes"), b"o-1"[..]);
    let (status, _) = answer(desk.request("GET", &format!("{path}?edited=true"))).await;
    assert_eq!(status, 404, "nobody has edited it");
    assert!(letters.iter().any(|letter| letter["topic"] == "late"));
}

#[tokio::test]
async fn while_the_database_is_away_letters_wait_and_none_is_lost() {
    let desk = Desk::new(&[]).await;
    desk.produce("work.dlq", &[ours("1")]).await;
    desk.awaits("", 1).await;
    let admin = desk.env.pool("dlq_admin");
    sqlx::query("ALTER TABLE letter RENAME TO hidden").execute(&admin).await.expect("renamed");
    desk.produce("work.dlq", &[ours("2")]).await;
    // An error that no waiting heals by itself is waited for too: nobody else has the letter.
    testkit::wait_until("the service to wait", crate::support::SOON, async || {
        let ready = reqwest::get(desk.url("/readyz")).await.expect("an answer");
        ready.status() == 503
    })
    .await;
    sqlx::query("ALTER TABLE hidden RENAME TO letter").execute(&admin).await.expect("renamed");
    desk.awaits("", 2).await;
    assert_eq!(desk.env.read_topic("work.dlq").await.len(), 2, "and it has written no letters of its own");
}

#[tokio::test]
async fn a_letter_that_the_database_refuses_is_listed_without_its_message_and_holds_up_no_other() {
    const REFUSAL: &str = "
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not this one'; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON letter FOR EACH ROW WHEN (NEW.payload = 'no') EXECUTE FUNCTION refuse();";
    let desk = Desk::new(&[]).await;
    sqlx::raw_sql(REFUSAL).execute(&desk.env.pool("dlq_admin")).await.expect("a trigger");
    let refused = Record { payload: Some(b"no".to_vec()), ..ours("6") };
    desk.produce("work.dlq", &[ours("5"), refused, ours("7")]).await;
    let letters = desk.awaits("", 3).await;
    let refused = letters.iter().find(|letter| letter["offset"] == 6).expect("it is listed");
    assert_eq!((&refused["truncated"], &refused["key"]), (&json!(true), &json!(null)), "{refused:#}");
    assert!(refused["error"].as_str().is_some_and(|error| error.contains("not this one")), "{refused:#}");
    assert_eq!(desk.letters("key=o-1").await.len(), 3, "it is found by its key");
    let (status, _) = answer(desk.request("POST", &format!("/api/dlq/messages/{}/replay", id(refused)))).await;
    assert_eq!(status, 409, "it has no message to send");
}
