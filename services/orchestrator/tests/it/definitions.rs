use serde_json::json;

use crate::trip::{PATIENT, Trip, definition};

#[tokio::test]
async fn an_instance_is_pinned_to_its_digest_and_a_changed_file_breaks_nothing_in_flight() {
    let trip = Trip::new(PATIENT).await;
    let orchestrator = trip.orchestrator(&[]).await;
    let old = trip.book().await;
    trip.awaits("hotel.requested", old, 1).await;
    orchestrator.stop().await;

    // Flights are booked by somebody else now, on other topics.
    let changed = definition(PATIENT).replace("version: 1", "version: 2").replace("flight.", "rail.");
    let topics = ["rail.requested", "rail.booked", "rail.full", "rail.cancel.requested", "rail.cancelled"];
    trip.env.create_topics(&topics, 4).await;
    trip.define(&changed);
    orchestrator.start().await;
    let new = trip.book().await;
    trip.awaits("hotel.requested", new, 1).await;
    for saga in [old, new] {
        trip.answer(saga, "hotel.reserved", "hotel", json!({"room": 12})).await;
    }
    trip.awaits("flight.requested", old, 1).await;
    trip.awaits("rail.requested", new, 1).await;
    assert!(trip.messages("rail.requested", old).await.is_empty());
    trip.answer(old, "flight.booked", "flight", json!({})).await;
    trip.answer(new, "rail.booked", "flight", json!({})).await;
    trip.awaits("trip.completed", old, 1).await;
    trip.awaits("trip.completed", new, 1).await;

    let (then, now) = (trip.show(&orchestrator, old).await, trip.show(&orchestrator, new).await);
    assert_ne!(then["digest"], now["digest"]);
    let (_, all) = trip.get(&orchestrator, "/api/definitions").await;
    assert_eq!(all["items"].as_array().map(Vec::len), Some(2));
    let (_, shown) = trip.get(&orchestrator, "/api/definitions/trip").await;
    assert_eq!((&shown["digest"], &shown["version"], &shown["current"]), (&now["digest"], &json!(2), &json!(true)));
    assert_eq!(shown["history"][1]["digest"], then["digest"]);
    assert_eq!(trip.get(&orchestrator, "/api/definitions/voyage").await.0, 404);
}

#[tokio::test]
async fn a_replica_without_the_file_loads_the_definition_from_the_database() {
    let trip = Trip::new(PATIENT).await;
    let newer = trip.orchestrator(&[]).await;
    let saga = trip.book().await;
    trip.awaits("hotel.requested", saga, 1).await;
    newer.kill9().await;
    // The same topics, another text: the replica that takes over never had the first one.
    trip.define(&definition("{ deadline: 9m, attempts: 3, undo: { deadline: 5m, attempts: 2, backoff: 1s } }"));
    let older = trip.orchestrator(&[]).await;
    trip.answer(saga, "hotel.reserved", "hotel", json!({"room": 12})).await;
    trip.awaits("flight.requested", saga, 1).await;
    trip.answer(saga, "flight.booked", "flight", json!({})).await;
    trip.awaits("trip.completed", saga, 1).await;
    let (_, all) = trip.get(&older, "/api/definitions").await;
    let current: Vec<_> = all["items"].as_array().expect("items").iter().map(|item| &item["current"]).collect();
    assert_eq!(current, [&json!(true), &json!(false)]);
}

#[tokio::test]
async fn a_wrong_file_stops_the_start_and_is_named() {
    let trip = Trip::new(PATIENT).await;
    trip.define(&definition(PATIENT).replace("after: [hotel]", "after: [motel]"));
    let orchestrator = trip.prepare(&[]).await;
    orchestrator.launch();
    let status = orchestrator.wait_exit(crate::trip::SOON).await.expect("it was started");
    assert_eq!(status.code(), Some(1));
    let log = orchestrator.log();
    assert!(log.contains("trip.yaml") && log.contains("motel"), "{log}");
}
