//! Rule "Backlog is not lateness": replies go before starts.

use testkit::wait_until;

use crate::trip::{PATIENT, SOON, Trip, count, metric};

#[tokio::test]
async fn starts_pause_while_too_many_are_in_flight_and_replies_go_on() {
    let trip = Trip::new(PATIENT).await;
    let orchestrator = trip.orchestrator(&[("SAGAS_MAX_IN_FLIGHT", "5")]).await;
    let pool = trip.pool();
    let mut sagas = trip.book_many(5).await;
    wait_until("starts pause", SOON, async || metric(&orchestrator, "saga_starts_paused").await > 0.0).await;
    assert_eq!(count(&pool, "saga").await, 5);

    sagas.extend(trip.book_many(20).await);
    // The replies of the first ones are taken although the starts behind them wait.
    let first = &sagas[..4];
    for saga in first {
        trip.answer(*saga, "hotel.reserved", "hotel", serde_json::json!({"room": 12})).await;
    }
    for saga in first {
        trip.awaits("flight.requested", *saga, 1).await;
    }
    assert_eq!(count(&pool, "saga").await, 5, "nothing starts before something ends");
    trip.serve(&sagas).await;
    assert_eq!(count(&pool, "saga").await, 25);
    wait_until("starts go on", SOON, async || metric(&orchestrator, "saga_starts_paused").await == 0.0).await;
}
