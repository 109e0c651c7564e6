use messaging::Outgoing;
use serde_json::json;
use uuid::Uuid;

use crate::trip::{PATIENT, Trip, booked, key, path, reply};

#[tokio::test]
async fn what_no_participant_sends_is_dead_lettered_with_its_cause_and_its_neighbours_go_on() {
    let trip = Trip::new(PATIENT).await;
    let _orchestrator = trip.orchestrator(&[]).await;
    let good = trip.book().await;
    trip.awaits("hotel.requested", good, 1).await;
    let ghost = Uuid::now_v7();
    let answer = |saga| reply(saga, "hotel.reserved", "hotel", json!({"room": 12}));
    let stray = Outgoing { causation_id: Some(Uuid::from_u128(9)), ..answer(good) };
    let early = reply(good, "flight.booked", "flight", json!({}));
    let nameless = Outgoing { saga_id: None, ..answer(good) };
    let garbled = Outgoing { payload: b"{\"room\":".to_vec(), ..answer(good) };
    let listed = Outgoing { payload: b"[1]".to_vec(), ..answer(good) };
    // Topics have no order among each other: what is early must be taken before the flight is asked for.
    trip.env.send(early).await;
    trip.env.await_message("flight.booked.dlq", |_| true).await;
    trip.env.send_all(&[answer(ghost), stray, nameless, garbled, listed, answer(good)]).await;

    trip.awaits("flight.requested", good, 1).await;
    let mut causes = Vec::new();
    testkit::wait_until("the dead letters", crate::trip::SOON, async || {
        let mut letters = trip.env.read_topic("hotel.reserved.dlq").await;
        letters.extend(trip.env.read_topic("flight.booked.dlq").await);
        causes = letters.iter().filter_map(|letter| letter.header("dlq-reason").map(str::to_owned)).collect();
        causes.len() == 6
    })
    .await;
    causes.sort_unstable();
    assert_eq!(
        causes,
        ["invalid-json", "invalid-json", "missing-header", "never-asked", "unexpected-causation", "unknown-saga"]
    );
    let letters = trip.env.read_topic("hotel.reserved.dlq").await;
    assert!(letters.iter().any(|letter| key(letter) == ghost), "with its own key");
    assert_eq!(path(&trip.pool(), good).await, ["STARTED", "STEP_SUCCEEDED"]);
}

#[tokio::test]
async fn a_trigger_whose_key_is_no_id_is_dead_lettered() {
    let trip = Trip::new(PATIENT).await;
    let _orchestrator = trip.orchestrator(&[]).await;
    let unnamed = Outgoing { key: "trip-7".to_owned(), subject: "trip-7".to_owned(), ..booked(Uuid::now_v7()) };
    trip.env.send(unnamed).await;
    let letter = trip.env.await_message("trip.booked.dlq", |_| true).await;
    assert_eq!(letter.header("dlq-reason"), Some("invalid-subject"));
}
