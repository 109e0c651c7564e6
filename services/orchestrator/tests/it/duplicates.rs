//! Rule "Duplicates": what comes again changes nothing and sends again what it caused, as far as that is unanswered.

use messaging::admin;
use serde_json::json;
use testkit::wait_until;

use crate::trip::{HASTY, PATIENT, SOON, Trip, booked, metric, path, reply};

#[tokio::test]
async fn the_trigger_of_a_parked_saga_sends_again_where_it_rests_or_how_it_ended_and_writes_nothing() {
    let trip = Trip::new(HASTY).await;
    let orchestrator = trip.orchestrator(&[]).await;
    let saga = trip.book().await;
    trip.awaits("trip.parked", saga, 1).await;
    let (parked, undos) =
        (trip.show(&orchestrator, saga).await, trip.messages("hotel.cancel.requested", saga).await.len());
    trip.env.send(booked(saga)).await;
    trip.awaits("trip.parked", saga, 2).await;
    assert_eq!(trip.show(&orchestrator, saga).await, parked, "nothing is written");
    assert_eq!(trip.messages("hotel.cancel.requested", saga).await.len(), undos, "nothing is asked for");

    let resolution = json!({"outcome": "CANCELLED", "reason": "cancelled by phone"});
    trip.act(&orchestrator, saga, "resolve", Some(resolution)).await.expect("an answer");
    trip.awaits("trip.cancelled", saga, 1).await;
    let ended = trip.show(&orchestrator, saga).await;
    trip.env.send(booked(saga)).await;
    trip.awaits("trip.cancelled", saga, 2).await;
    assert_eq!(trip.show(&orchestrator, saga).await, ended, "nothing is written");
    trip.timelines_are_whole().await;
}

#[tokio::test]
async fn a_duplicate_trigger_sends_again_everything_unanswered() {
    let trip = Trip::new(PATIENT).await;
    let _orchestrator = trip.orchestrator(&[]).await;
    let saga = trip.book().await;
    trip.awaits("hotel.requested", saga, 1).await;
    trip.env.send(booked(saga)).await;
    trip.awaits("hotel.requested", saga, 2).await;
    assert_eq!(path(&trip.pool(), saga).await, ["STARTED"], "nothing is written");

    trip.answer(saga, "hotel.reserved", "hotel", json!({"room": 12})).await;
    trip.awaits("flight.requested", saga, 1).await;
    trip.answer(saga, "flight.booked", "flight", json!({})).await;
    trip.awaits("trip.completed", saga, 1).await;
    trip.env.send(booked(saga)).await;
    trip.awaits("trip.completed", saga, 2).await;
    assert_eq!(trip.messages("hotel.requested", saga).await.len(), 2, "answered commands are not sent again");
}

#[tokio::test]
async fn a_duplicate_reply_sends_again_what_it_caused_and_is_unanswered() {
    let trip = Trip::new(PATIENT).await;
    let _orchestrator = trip.orchestrator(&[]).await;
    let saga = trip.book().await;
    trip.awaits("hotel.requested", saga, 1).await;
    let room = reply(saga, "hotel.reserved", "hotel", json!({"room": 12}));
    trip.env.send(room.clone()).await;
    trip.awaits("flight.requested", saga, 1).await;
    trip.env.send(room.clone()).await;
    trip.awaits("flight.requested", saga, 2).await;

    let seat = reply(saga, "flight.booked", "flight", json!({}));
    trip.env.send(seat.clone()).await;
    trip.awaits("trip.completed", saga, 1).await;
    trip.env.send_all(&[room, seat]).await;
    trip.awaits("trip.completed", saga, 2).await;
    assert_eq!(trip.messages("flight.requested", saga).await.len(), 2, "its command is answered");
    assert_eq!(path(&trip.pool(), saga).await, ["STARTED", "STEP_SUCCEEDED", "STEP_SUCCEEDED"]);
}

#[tokio::test]
async fn no_command_follows_its_undo_and_a_late_reply_changes_nothing() {
    let trip = Trip::new(HASTY).await;
    let orchestrator = trip.orchestrator(&[]).await;
    let saga = trip.book().await;
    trip.awaits("hotel.cancel.requested", saga, 1).await;
    let asked = trip.messages("hotel.requested", saga).await.len();
    // The participant was slow: it did the step after all, and its trigger is delivered again.
    trip.answer(saga, "hotel.reserved", "hotel", json!({"room": 12})).await;
    trip.env.send(booked(saga)).await;
    wait_until("the late reply is counted", SOON, async || {
        metric(&orchestrator, "saga_ignored_replies_total").await > 0.0
    })
    .await;
    trip.confirm(saga, "hotel.cancelled", "hotel").await;
    trip.awaits("trip.cancelled", saga, 1).await;
    assert_eq!(trip.messages("hotel.requested", saga).await.len(), asked);
    assert!(trip.messages("flight.requested", saga).await.is_empty(), "never resumed");
    trip.timelines_are_whole().await;
}

#[tokio::test]
async fn rewinding_the_group_to_the_start_changes_no_table() {
    const TABLES: &str = "SELECT md5(string_agg(t, '|' ORDER BY t)) FROM (
        SELECT s::text FROM saga s UNION ALL SELECT l::text FROM saga_timeline l
        UNION ALL SELECT r::text FROM saga_timer r UNION ALL SELECT a::text FROM saga_audit a) AS x(t)";
    let trip = Trip::new(PATIENT).await;
    let orchestrator = trip.orchestrator(&[]).await;
    let ended = trip.book_many(10).await;
    trip.serve(&ended).await;
    let waiting = trip.book().await;
    trip.awaits("hotel.requested", waiting, 1).await;
    orchestrator.stop().await;
    let pool = trip.pool();
    let before: String = sqlx::query_scalar(TABLES).fetch_one(&pool).await.expect("a hash");

    let kafka = trip.env.kafka();
    let topics = ["trip.booked", "hotel.reserved", "flight.booked"].map(|topic| kafka.topic(topic));
    admin::rewind_group(&kafka.bootstrap_servers, &kafka.group("orchestrator"), &topics).await.expect("rewound");
    orchestrator.start().await;
    trip.awaits("hotel.requested", waiting, 2).await;
    for saga in ended {
        trip.awaits("trip.completed", saga, 2).await;
    }
    let after: String = sqlx::query_scalar(TABLES).fetch_one(&pool).await.expect("a hash");
    assert_eq!(after, before);
}
