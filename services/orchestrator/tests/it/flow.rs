//! Rule "End events": their ids follow from saga, type and version.

use std::time::Duration;

use serde_json::json;
use testkit::{assert_statements_prepare, wait_until};

use crate::trip::{PATIENT, Trip, path};

#[tokio::test]
async fn every_statement_prepares_with_the_rights_of_the_service() {
    let env = testkit::Env::bare("orchestrator");
    env.create_database("orchestrator").await;
    assert_statements_prepare(&env.role_pool("orchestrator"), orchestrator::STATEMENTS).await;
}

#[tokio::test]
async fn a_saga_asks_one_step_after_the_other_and_shows_its_path() {
    let trip = Trip::new(PATIENT).await;
    let orchestrator = trip.orchestrator(&[]).await;
    let saga = trip.book().await;
    let command = trip.awaits("hotel.requested", saga, 1).await;
    assert_eq!((command.saga_id, command.step.as_deref()), (Some(saga), Some("hotel")));
    assert_eq!(command.source, "/chaos-symphony/orchestrator");

    trip.answer(saga, "hotel.reserved", "hotel", json!({"room": 12})).await;
    trip.awaits("flight.requested", saga, 1).await;
    assert_eq!(trip.messages("flight.requested", saga).await[0].payload.as_deref(), Some(&br#"{"room":12}"#[..]));
    trip.answer(saga, "flight.booked", "flight", json!({"seat": "4a"})).await;
    let end = trip.awaits("trip.completed", saga, 1).await;
    assert_eq!(end.id, saga::ids::end_event_id(saga, "trip.completed", 3));

    let shown = trip.show(&orchestrator, saga).await;
    assert_eq!(
        (&shown["state"], &shown["version"], &shown["definition"]),
        (&json!("COMPLETED"), &json!(3), &json!("trip"))
    );
    assert_eq!(shown["subject"], saga.to_string());
    assert_eq!(shown["steps"][1]["output"], json!({"seat": "4a"}));
    let types: Vec<_> = shown["timeline"].as_array().expect("a list").iter().map(|entry| &entry["type"]).collect();
    assert_eq!(types, ["STARTED", "STEP_SUCCEEDED", "STEP_SUCCEEDED"]);
    assert_eq!(shown["timeline"][2]["emitted"], json!([end.id]));

    let (_, all) = trip.get(&orchestrator, "/api/sagas?definition=trip&state=COMPLETED").await;
    assert_eq!(all["items"][0]["sagaId"], saga.to_string());
    assert_eq!(trip.get(&orchestrator, "/api/sagas?state=RUNNING").await.1["items"], json!([]));
    assert_eq!(trip.get(&orchestrator, "/api/sagas?state=running").await.0, 400);
    for (path, parameter) in [
        ("/api/sagas?definition=trip%00", "definition"),
        ("/api/sagas?stat=RUNNING", "stat"),
        ("/api/definitions?name=trip", "name"),
        ("/api/definitions/trip%00", "name"),
    ] {
        let (status, problem) = trip.get(&orchestrator, path).await;
        assert_eq!((status, &problem["errors"][0]["parameter"]), (400, &json!(parameter)), "{path}: {problem}");
    }
    assert_eq!(trip.get(&orchestrator, &format!("/api/sagas/{}", uuid::Uuid::nil())).await.0, 404);
}

#[tokio::test]
async fn a_refusal_undoes_what_succeeded_and_ends_when_the_undo_is_confirmed() {
    let trip = Trip::new(PATIENT).await;
    let _orchestrator = trip.orchestrator(&[]).await;
    let saga = trip.book().await;
    trip.awaits("hotel.requested", saga, 1).await;
    trip.answer(saga, "hotel.reserved", "hotel", json!({"room": 12})).await;
    trip.awaits("flight.requested", saga, 1).await;
    // NUL cannot be stored as text, and is no reason to lose the refusal.
    trip.answer(saga, "flight.full", "flight", json!({"reason": "sold\0out"})).await;
    trip.awaits("hotel.cancel.requested", saga, 1).await;
    trip.reaches(saga, "COMPENSATING").await;
    trip.confirm(saga, "hotel.cancelled", "hotel").await;
    trip.awaits("trip.cancelled", saga, 1).await;
    trip.reaches(saga, "COMPENSATED").await;
    assert_eq!(path(&trip.pool(), saga).await, ["STARTED", "STEP_SUCCEEDED", "STEP_FAILED", "STEP_UNDONE"]);
    assert!(trip.messages("flight.cancel.requested", saga).await.is_empty(), "a refusal needs no undo");
}

#[tokio::test]
async fn pages_of_the_list_hold_every_saga_once_the_newest_first() {
    let trip = Trip::new(PATIENT).await;
    let orchestrator = trip.orchestrator(&[]).await;
    let mut booked = trip.book_many(5).await;
    let pool = trip.pool();
    wait_until("all have started", Duration::from_secs(30), async || crate::trip::count(&pool, "saga").await == 5)
        .await;
    for state in ["", "&state=RUNNING"] {
        let mut listed = Vec::new();
        let mut cursor = String::new();
        loop {
            let (status, page) = trip.get(&orchestrator, &format!("/api/sagas?limit=2{state}{cursor}")).await;
            assert_eq!(status, 200, "{page}");
            listed.extend(page["items"].as_array().expect("items").iter().map(|saga| saga["sagaId"].clone()));
            let Some(next) = page["nextCursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        booked.sort_unstable_by(|a, b| b.cmp(a));
        assert_eq!(listed, booked.iter().map(|id| json!(id)).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_happy_saga_writes_its_row_its_path_and_its_timer_and_nothing_else() {
    const SAGAS: i64 = 40;
    // Of three entries: saga 1 insert + 2 updates, timeline 3 inserts, timer 1 insert + 1 delete.
    const WRITES: i64 = 8;
    const COUNT: &str = "SELECT sum(n_tup_ins + n_tup_upd + n_tup_del)::bigint FROM pg_stat_user_tables
        WHERE relname IN ('saga', 'saga_timeline', 'saga_timer', 'saga_audit')";
    let trip = Trip::new(PATIENT).await;
    let orchestrator = trip.orchestrator(&[]).await;
    let sagas = trip.book_many(usize::try_from(SAGAS).expect("few")).await;
    trip.serve(&sagas).await;
    orchestrator.stop().await;
    let pool = trip.pool();
    let mut written = 0;
    wait_until("the statistics arrive", Duration::from_secs(30), async || {
        written = sqlx::query_scalar(COUNT).fetch_one(&pool).await.expect("a sum");
        written >= SAGAS * WRITES
    })
    .await;
    assert_eq!(written, SAGAS * WRITES);
}

#[tokio::test]
async fn no_index_of_the_saga_table_has_a_column_that_changes() {
    // Such an index would end HOT updates. Their share cannot be asserted here: transactions of other tests on the same
    // server hold back the pruning that makes room for them.
    const INDEXED: &str = "SELECT DISTINCT a.attname::text FROM pg_index i
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey)
        WHERE i.indrelid = 'saga'::regclass";
    let env = testkit::Env::bare("orchestrator");
    env.create_database("orchestrator").await;
    let indexed: Vec<String> = sqlx::query_scalar(INDEXED).fetch_all(&env.pool("orchestrator")).await.expect("columns");
    assert_eq!(indexed, ["id"]);
}
