//! Acts on many letters, and what keeps the index from growing for ever.

use serde_json::json;
use testkit::wait_until;

use crate::support::{Desk, SOON, id, record};

/// Three letters for one reason and one for another.
async fn four(desk: &Desk) {
    let letter = |offset: &'static str, reason: &'static str| {
        let headers: &[(&str, &[u8])] = &[
            ("dlq-topic", b"work"),
            ("dlq-partition", b"0"),
            ("dlq-offset", offset.as_bytes()),
            ("dlq-consumer-group", b"worker"),
            ("dlq-reason", reason.as_bytes()),
        ];
        record(b"k", b"v", headers)
    };
    let letters = [letter("1", "odd"), letter("2", "even"), letter("3", "odd"), letter("5", "odd")];
    desk.produce("work.dlq", &letters).await;
    desk.awaits("", 4).await;
}

#[tokio::test]
async fn letters_are_discarded_by_filter_and_every_act_is_in_the_audit() {
    let desk = Desk::new(&[]).await;
    four(&desk).await;
    let discard = async |body| desk.post("/api/dlq/discards", body).await;
    let (status, problem) = discard(json!({ "filter": {}, "reason": "all" })).await;
    assert_eq!((status, &problem["errors"][0]["pointer"]), (422, &json!("/filter")), "{problem}");
    assert_eq!(discard(json!({ "filter": { "reason": "odd" }, "reason": "" })).await.0, 422);
    assert_eq!(discard(json!({ "filter": { "script": "x" }, "reason": "all" })).await.0, 422);
    let mut asked = json!({ "filter": { "reason": "odd" }, "reason": "a test", "dryRun": true });
    assert_eq!(discard(asked.clone()).await, (200, json!({ "dryRun": true, "discarded": 3 })));
    assert_eq!(desk.letters("state=NEW").await.len(), 4, "a dry run changes nothing");
    asked["dryRun"] = json!(false);
    assert_eq!(discard(asked.clone()).await, (200, json!({ "dryRun": false, "discarded": 3 })));
    assert_eq!(discard(asked).await.1["discarded"], 0);
    let left = desk.awaits("state=NEW", 1).await;
    assert_eq!(left[0]["reason"], "even");
    let detail = desk.get(&format!("/api/dlq/messages/{}", id(&desk.letters("reason=odd").await[0]))).await;
    assert_eq!((&detail["history"][0]["actor"], &detail["history"][0]["detail"]), (&json!("ada"), &json!("a test")));

    for wrong in [json!({ "ratePerSecond": 0 }), json!({ "script": "x" })] {
        assert_eq!(desk.post("/api/dlq/replays", wrong).await.0, 422);
    }
    assert_eq!(desk.post("/api/dlq/replays", json!({ "dryRun": true })).await.0, 200);
    let audit = desk.get("/api/dlq/audit").await;
    let told: Vec<_> = audit["items"].as_array().expect("items").iter().map(|e| (&e["act"], &e["result"])).collect();
    let expected = [
        ("campaign-preview", "done"),
        ("campaign-start", "refused"),
        ("campaign-start", "refused"),
        ("discard-many", "done"),
        ("discard-many", "done"),
        ("discard-many", "done"),
        ("discard-many", "refused"),
        ("discard-many", "refused"),
        ("discard-many", "refused"),
    ]
    .map(|(act, result)| (json!(act), json!(result)));
    assert_eq!(told, expected.iter().map(|(act, result)| (act, result)).collect::<Vec<_>>());
    let counts = desk.get("/api/dlq/groups").await;
    let of = |reason: &str| counts["items"].as_array().expect("items").iter().find(|g| g["reason"] == reason).cloned();
    let odd = of("odd").expect("a group");
    assert_eq!((&odd["count"], &odd["new"]), (&json!(3), &json!(0)), "{odd}");
    assert_eq!(desk.get("/api/dlq/groups?state=NEW").await["items"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn what_ended_long_ago_is_removed_and_what_waits_and_the_audit_stay() {
    let desk = Desk::new(&[]).await;
    four(&desk).await;
    let body = json!({ "filter": { "reason": "odd" }, "reason": "a test" });
    assert_eq!(desk.post("/api/dlq/discards", body).await.0, 200);
    let admin = desk.env.pool("dlq_admin");
    let aged = "UPDATE letter SET state_at = now() - interval '91 days' WHERE \"offset\" IN (1, 2, 3)";
    sqlx::query(aged).execute(&admin).await.expect("older letters");
    let campaign = "INSERT INTO campaign (id, state, filter, rate, max_failure_share, actor, ended_at)
        VALUES (gen_random_uuid(), 'COMPLETED', '{}', 1, 0, 'ada', now() - interval '91 days')";
    sqlx::query(campaign).execute(&admin).await.expect("an old campaign");
    desk.service.restart().await;
    wait_until("the old ones to be gone", SOON, async || {
        desk.letters("").await.len() == 2 && desk.get("/api/dlq/replays").await["items"] == json!([])
    })
    .await;
    let mut left: Vec<_> = desk.letters("").await.iter().map(|letter| letter["offset"].clone()).collect();
    left.sort_by_key(serde_json::Value::as_i64);
    assert_eq!(left, [2, 5], "a letter that is NEW stays, however old");
    assert_eq!(desk.get("/api/dlq/audit").await["items"].as_array().map(Vec::len), Some(1));
    let groups = desk.get("/api/dlq/groups").await;
    let counts: i64 = groups["items"].as_array().expect("items").iter().filter_map(|g| g["count"].as_i64()).sum();
    assert_eq!(counts, 2, "{groups}");
}
