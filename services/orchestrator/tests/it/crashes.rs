//! Rule "Partial produce": a process that dies with a part of a batch sent has committed no offset of it, and the batch is
//! produced again.

use serde_json::json;

use crate::trip::{PATIENT, SOON, Trip, path};

/// The first batch that is handled is the one of the trigger.
async fn survives(point: &str) {
    let trip = Trip::new(PATIENT).await;
    let orchestrator = trip.fated(point).await;
    let sagas = trip.book_many(20).await;
    orchestrator.wait_exit(SOON).await;
    orchestrator.start().await;
    trip.serve(&sagas).await;
    for saga in &sagas {
        trip.awaits("trip.completed", *saga, 1).await;
        assert_eq!(path(&trip.pool(), *saga).await, ["STARTED", "STEP_SUCCEEDED", "STEP_SUCCEEDED"], "{point}");
    }
    trip.timelines_are_whole().await;
}

#[tokio::test]
async fn a_crash_before_the_commit_is_healed_by_redelivery() {
    survives("before-commit").await;
}

#[tokio::test]
async fn a_crash_between_commit_and_produce_is_healed_by_redelivery() {
    survives("after-commit").await;
}

#[tokio::test]
async fn a_batch_of_which_only_a_part_was_produced_is_healed_by_redelivery() {
    survives("after-acks:2").await;
}

#[tokio::test]
async fn a_crash_between_the_acknowledgements_and_the_offsets_is_healed_by_redelivery() {
    survives("before-offsets").await;
}

#[tokio::test]
async fn the_end_event_survives_a_crash_after_the_commit_that_ended_the_saga() {
    let trip = Trip::new(PATIENT).await;
    let orchestrator = trip.fated("after-commit:3").await;
    let saga = trip.book().await;
    trip.awaits("hotel.requested", saga, 1).await;
    trip.answer(saga, "hotel.reserved", "hotel", json!({"room": 12})).await;
    trip.awaits("flight.requested", saga, 1).await;
    trip.answer(saga, "flight.booked", "flight", json!({})).await;
    orchestrator.wait_exit(SOON).await;
    assert!(trip.messages("trip.completed", saga).await.is_empty());
    trip.reaches(saga, "COMPLETED").await;
    orchestrator.start().await;
    let end = trip.awaits("trip.completed", saga, 1).await;
    assert_eq!(end.id, saga::ids::end_event_id(saga, "trip.completed", 3));
}
