//! Rule "Fold": whoever decides on a saga that somebody else has moved meanwhile decides again.

use testkit::wait_until;

use crate::trip::{PATIENT, SOON, Trip, count, path};

const SAGAS: usize = 150;

#[tokio::test]
async fn a_rebalance_in_the_middle_and_the_death_of_a_replica_change_nothing() {
    let trip = Trip::new(PATIENT).await;
    let one = trip.orchestrator(&[("KAFKA_MAX_BATCH", "20")]).await;
    let mut sagas = trip.book_many(SAGAS).await;
    let other = trip.prepare(&[("KAFKA_MAX_BATCH", "20")]).await;
    other.launch();
    sagas.extend(trip.book_many(SAGAS).await);
    let pool = trip.pool();
    let started = async || usize::try_from(count(&pool, "saga").await).expect("a count");
    wait_until("the second half begins", SOON, async || started().await > SAGAS).await;
    one.kill9().await;
    trip.serve(&sagas).await;
    for saga in &sagas {
        assert_eq!(path(&pool, *saga).await, ["STARTED", "STEP_SUCCEEDED", "STEP_SUCCEEDED"]);
    }
    trip.timelines_are_whole().await;
}

#[tokio::test]
async fn a_replica_that_was_frozen_and_comes_back_changes_nothing() {
    let trip = Trip::new(PATIENT).await;
    let one = trip.orchestrator(&[("KAFKA_MAX_BATCH", "10")]).await;
    let _other = trip.orchestrator(&[("KAFKA_MAX_BATCH", "10")]).await;
    let sagas = trip.book_many(SAGAS).await;
    let pool = trip.pool();
    wait_until("work has begun", SOON, async || count(&pool, "saga").await > 0).await;
    one.pause();
    // Its partitions find another owner, who finishes what it held.
    trip.serve(&sagas).await;
    one.resume();
    one.ready().await;
    let more = trip.book_many(20).await;
    trip.serve(&[sagas.clone(), more].concat()).await;
    for saga in &sagas {
        assert_eq!(path(&pool, *saga).await, ["STARTED", "STEP_SUCCEEDED", "STEP_SUCCEEDED"]);
    }
    trip.timelines_are_whole().await;
}
