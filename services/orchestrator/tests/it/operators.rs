//! Rule "No Kafka input, no redelivery": what an operator does is sent although no message comes again.

use serde_json::{Value, json};
use testkit::Process;
use uuid::Uuid;

use crate::trip::{HASTY, PATIENT, SOON, Trip, path};

async fn parked(trip: &Trip) -> Uuid {
    let saga = trip.book().await;
    trip.awaits("trip.parked", saga, 1).await;
    trip.reaches(saga, "PARKED").await;
    saga
}

async fn acts(trip: &Trip, orchestrator: &Process, saga: Uuid, verb: &str, body: Option<Value>) -> (u16, Value) {
    trip.act(orchestrator, saga, verb, body).await.expect("an answer")
}

#[tokio::test]
async fn a_parked_saga_that_is_retried_goes_on_where_it_stopped() {
    let trip = Trip::new(HASTY).await;
    let orchestrator = trip.orchestrator(&[]).await;
    let saga = parked(&trip).await;
    let (status, body) = acts(&trip, &orchestrator, saga, "retry", None).await;
    assert_eq!((status, &body["state"]), (200, &json!("COMPENSATING")), "{body}");
    trip.awaits("hotel.cancel.requested", saga, 3).await;
    trip.confirm(saga, "hotel.cancelled", "hotel").await;
    trip.awaits("trip.cancelled", saga, 1).await;
    let path = path(&trip.pool(), saga).await;
    assert_eq!(path[5], "OPERATOR_RETRIED");
    trip.timelines_are_whole().await;
}

#[tokio::test]
async fn a_running_saga_is_turned_back_before_its_pivot_and_not_after_its_end() {
    let trip = Trip::new(PATIENT).await;
    let orchestrator = trip.orchestrator(&[]).await;
    let saga = trip.book().await;
    trip.awaits("hotel.requested", saga, 1).await;
    trip.answer(saga, "hotel.reserved", "hotel", json!({"room": 12})).await;
    trip.awaits("flight.requested", saga, 1).await;
    let (status, body) = acts(&trip, &orchestrator, saga, "compensate", Some(json!({"reason": "fraud"}))).await;
    assert_eq!((status, &body["state"]), (200, &json!("COMPENSATING")), "{body}");
    // What is asked for and unanswered may have happened: it is undone too, in the reverse order.
    trip.awaits("flight.cancel.requested", saga, 1).await;
    trip.confirm(saga, "flight.cancelled", "flight").await;
    trip.awaits("hotel.cancel.requested", saga, 1).await;
    trip.confirm(saga, "hotel.cancelled", "hotel").await;
    trip.awaits("trip.cancelled", saga, 1).await;

    let (status, problem) = acts(&trip, &orchestrator, saga, "compensate", None).await;
    assert_eq!(status, 409, "{problem}");
    assert_eq!(problem["type"], "https://chaossymphony.dev/problems/verb-refused");
}

#[tokio::test]
async fn a_parked_saga_is_resolved_by_whoever_answers_for_it() {
    let trip = Trip::new(HASTY).await;
    let orchestrator = trip.orchestrator(&[]).await;
    let saga = parked(&trip).await;
    let resolution = json!({"outcome": "COMPLETED", "reason": "booked by phone"});
    let (status, body) = acts(&trip, &orchestrator, saga, "resolve", Some(resolution)).await;
    assert_eq!((status, &body["state"]), (200, &json!("COMPLETED")), "{body}");
    trip.awaits("trip.completed", saga, 1).await;
    assert_eq!(path(&trip.pool(), saga).await.last().map(String::as_str), Some("OPERATOR_RESOLVED"));
    testkit::wait_until("its timer goes", SOON, async || crate::trip::unfinished(&trip.pool()).await == 0).await;
}

#[tokio::test]
async fn every_act_is_audited_and_so_is_every_refusal() {
    let trip = Trip::new(PATIENT).await;
    let orchestrator = trip.orchestrator(&[]).await;
    let saga = trip.book().await;
    trip.awaits("hotel.requested", saga, 1).await;
    for (verb, body, expected) in [
        ("retry", None, 409),
        ("resolve", Some(json!({"outcome": "CANCELLED", "reason": "enough"})), 409),
        ("resolve", Some(json!({"outcome": "LOST", "reason": "enough"})), 422),
        ("resolve", Some(json!({"outcome": "CANCELLED", "reason": " "})), 422),
        ("compensate", Some(json!({"reason": "fraud"})), 200),
    ] {
        let (status, answer) = acts(&trip, &orchestrator, saga, verb, body).await;
        assert_eq!(status, expected, "{verb}: {answer}");
    }
    assert_eq!(acts(&trip, &orchestrator, Uuid::nil(), "retry", None).await.0, 404);

    const AUDIT: &str = "SELECT json_agg(json_build_array(verb, actor, result, reason, outcome, version) ORDER BY id)
        FROM saga_audit";
    let audited: Value = sqlx::query_scalar(AUDIT).fetch_one(&trip.pool()).await.expect("the audit");
    assert_eq!(
        audited,
        json!([
            ["retry", "ada", "refused", null, null, 1],
            ["resolve", "ada", "refused", "enough", "CANCELLED", 1],
            ["compensate", "ada", "applied", "fraud", null, 2],
        ])
    );
}

#[tokio::test]
async fn a_verb_survives_a_crash_before_and_after_its_commit() {
    for (point, committed) in [("verb-before-commit@retry", false), ("verb-after-commit@retry", true)] {
        let trip = Trip::new(HASTY).await;
        let orchestrator = trip.fated(point).await;
        let saga = parked(&trip).await;
        assert!(trip.act(&orchestrator, saga, "retry", None).await.is_none(), "{point}: the process dies");
        orchestrator.wait_exit(SOON).await;
        orchestrator.start().await;
        if committed {
            trip.awaits("hotel.cancel.requested", saga, 3).await;
        } else {
            assert_eq!(path(&trip.pool(), saga).await.len(), 5, "{point}: nothing happened");
            assert_eq!(acts(&trip, &orchestrator, saga, "retry", None).await.0, 200);
            trip.awaits("hotel.cancel.requested", saga, 3).await;
        }
        trip.timelines_are_whole().await;
        orchestrator.stop().await;
    }
}

#[tokio::test]
async fn a_verb_at_one_replica_is_sent_by_the_owner_of_the_partition() {
    let trip = Trip::new(HASTY).await;
    let owner = trip.orchestrator(&[]).await;
    let saga = parked(&trip).await;
    // With five replicas for four partitions at least one owns nothing of this saga.
    let mut others = Vec::new();
    for _ in 0..4 {
        others.push(trip.orchestrator(&[]).await);
    }
    for replica in others.iter().chain([&owner]) {
        let (status, _) = acts(&trip, replica, saga, "retry", None).await;
        assert!(matches!(status, 200 | 409), "{status}");
    }
    trip.awaits("hotel.cancel.requested", saga, 3).await;
    trip.timelines_are_whole().await;
}
