//! Rule "No Kafka input, no redelivery": what a timer does is sent until it is acknowledged.
//! Rule "Backlog is not lateness": an answer that waits in Kafka is in time.

use serde_json::json;
use testkit::wait_until;
use uuid::Uuid;

use crate::trip::{HASTY, SOON, Trip, path, reply};

#[tokio::test]
async fn a_deadline_sends_the_same_command_again_then_undoes_the_step_then_parks() {
    let trip = Trip::new(HASTY).await;
    let orchestrator = trip.orchestrator(&[]).await;
    let saga = trip.book().await;
    trip.awaits("hotel.requested", saga, 2).await;
    trip.awaits("hotel.cancel.requested", saga, 2).await;
    let parked = trip.awaits("trip.parked", saga, 1).await;
    let shown = trip.show(&orchestrator, saga).await;
    assert_eq!(shown["state"], "PARKED");
    assert_eq!(parked.id, saga::ids::end_event_id(saga, "trip.parked", 5));
    assert_eq!(
        path(&trip.pool(), saga).await,
        ["STARTED", "STEP_RETRIED", "STEP_TIMED_OUT", "UNDO_RETRIED", "UNDO_TIMED_OUT"]
    );
    let (_, parked) = trip.get(&orchestrator, "/api/sagas?state=PARKED").await;
    assert_eq!(parked["items"][0]["sagaId"], saga.to_string());
}

#[tokio::test]
async fn a_confirmation_that_comes_while_parked_resumes_the_saga_with_a_greater_version() {
    let trip = Trip::new(HASTY).await;
    let _orchestrator = trip.orchestrator(&[]).await;
    let saga = trip.book().await;
    trip.awaits("trip.parked", saga, 1).await;
    trip.confirm(saga, "hotel.cancelled", "hotel").await;
    let end = trip.awaits("trip.cancelled", saga, 1).await;
    assert_eq!(end.id, saga::ids::end_event_id(saga, "trip.cancelled", 6), "versions of end events only grow");
    trip.reaches(saga, "COMPENSATED").await;
}

#[tokio::test]
async fn backlog_is_not_lateness() {
    const SAGAS: usize = 50;
    let trip = Trip::new("{ deadline: 10s, attempts: 1, undo: { deadline: 2s, attempts: 1, backoff: 1s } }").await;
    let orchestrator = trip.orchestrator(&[]).await;
    let sagas = trip.book_many(SAGAS).await;
    let asked = async || trip.env.read_topic("hotel.requested").await.len() == SAGAS;
    wait_until("all are asked", SOON, asked).await;
    // While the orchestrator is away everybody answers, and every deadline passes.
    orchestrator.kill9().await;
    let replies: Vec<_> =
        sagas.iter().map(|saga| reply(*saga, "hotel.reserved", "hotel", json!({"room": 12}))).collect();
    trip.env.send_all(&replies).await;
    let pool = trip.pool();
    let late = "SELECT count(*) FROM saga_timer WHERE due_at < now()";
    let all_late = async || sqlx::query_scalar::<_, i64>(late).fetch_one(&pool).await.expect("a count") == 50;
    wait_until("every deadline has passed", SOON, all_late).await;
    orchestrator.start().await;
    let asked = async || trip.env.read_topic("flight.requested").await.len() >= SAGAS;
    wait_until("every answer is taken", SOON, asked).await;
    for saga in &sagas {
        assert_eq!(path(&pool, *saga).await[..2], ["STARTED", "STEP_SUCCEEDED"], "the answer had been in time");
    }
}

#[tokio::test]
async fn timers_fire_only_on_the_owner_of_their_partition() {
    let trip = Trip::new(HASTY).await;
    let one = trip.orchestrator(&[]).await;
    let other = trip.orchestrator(&[]).await;
    let owns = async |process| crate::trip::metric(process, "messaging_owned_partitions").await > 0.0;
    wait_until("both own partitions", SOON, async || owns(&one).await && owns(&other).await).await;
    let sagas = trip.book_many(40).await;
    for saga in &sagas {
        trip.reaches(*saga, "PARKED").await;
    }
    wait_until("everything is settled", SOON, async || due(&trip).await == 0).await;
    for saga in &sagas {
        assert_eq!(sent(&trip, *saga).await, [2, 2, 1], "every attempt once, by one owner");
    }
}

async fn due(trip: &Trip) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM saga_timer WHERE due_at IS NOT NULL")
        .fetch_one(&trip.pool())
        .await
        .expect("a count")
}

async fn sent(trip: &Trip, saga: Uuid) -> [usize; 3] {
    let mut sent = [0; 3];
    for (index, topic) in ["hotel.requested", "hotel.cancel.requested", "trip.parked"].into_iter().enumerate() {
        sent[index] = trip.messages(topic, saga).await.len();
    }
    sent
}

/// The timer's transition is stored once, and its command is sent although the process died at `point`. The deadline
/// is longer than the dead process keeps its partitions, so that the next one does not come first.
async fn fires_again(point: &str) {
    let trip = Trip::new("{ deadline: 10s, attempts: 9, undo: { deadline: 5m, attempts: 2, backoff: 1s } }").await;
    let orchestrator = trip.fated(point).await;
    let saga = trip.book().await;
    trip.awaits("hotel.requested", saga, 1).await;
    orchestrator.wait_exit(SOON).await;
    orchestrator.start().await;
    trip.awaits("hotel.requested", saga, 2).await;
    assert_eq!(path(&trip.pool(), saga).await, ["STARTED", "STEP_RETRIED"], "{point}");
    let settled = async || !emits(&trip, saga).await;
    wait_until("the timer is settled", SOON, settled).await;
    trip.timelines_are_whole().await;
}

async fn emits(trip: &Trip, saga: Uuid) -> bool {
    const EMIT: &str = "SELECT emit FROM saga_timer WHERE saga_id = $1";
    sqlx::query_scalar(EMIT).bind(saga).fetch_one(&trip.pool()).await.expect("its timer")
}

#[tokio::test]
async fn a_crash_before_a_timers_commit_changes_nothing() {
    fires_again("timer-before-commit").await;
}

#[tokio::test]
async fn a_crash_between_a_timers_commit_and_its_messages_sends_them() {
    fires_again("timer-after-commit").await;
}

#[tokio::test]
async fn a_crash_between_a_timers_messages_and_its_settling_sends_them_again() {
    fires_again("timer-before-settle").await;
}

#[tokio::test]
async fn a_reply_leaves_the_timer_alone_and_it_is_moved_when_it_is_early() {
    let trip = Trip::new("{ deadline: 3s, attempts: 9, undo: { deadline: 5m, attempts: 2, backoff: 1s } }").await;
    let orchestrator = trip.orchestrator(&[]).await;
    let saga = trip.book().await;
    trip.awaits("hotel.requested", saga, 1).await;
    trip.answer(saga, "hotel.reserved", "hotel", json!({"room": 12})).await;
    trip.awaits("flight.requested", saga, 1).await;
    let moved = async || crate::trip::metric(&orchestrator, "saga_timers_total").await >= 1.0;
    wait_until("the early timer is looked at", SOON, moved).await;
    assert_eq!(trip.messages("hotel.requested", saga).await.len(), 1, "nothing was late");
    trip.awaits("flight.requested", saga, 2).await;
    assert_eq!(path(&trip.pool(), saga).await, ["STARTED", "STEP_SUCCEEDED", "STEP_RETRIED"]);
}

/// A row beyond the saga's version, as a restore gone wrong could leave it, makes every transition of it conflict.
#[tokio::test]
async fn a_saga_that_cannot_go_on_holds_up_no_other_timer() {
    let trip = Trip::new("{ deadline: 2s, attempts: 3, undo: { deadline: 5m, attempts: 2, backoff: 1s } }").await;
    let _orchestrator = trip.orchestrator(&[]).await;
    let broken = trip.book().await;
    trip.awaits("hotel.requested", broken, 1).await;
    sqlx::query(
        "INSERT INTO saga_timeline SELECT (jsonb_populate_record(t, '{\"version\":2}')).* \
         FROM saga_timeline t WHERE saga_id = $1 AND version = 1",
    )
    .bind(broken)
    .execute(&trip.pool())
    .await
    .expect("a planted row");
    let healthy = trip.book().await;
    trip.awaits("hotel.requested", healthy, 2).await;
    assert_eq!(trip.messages("hotel.requested", broken).await.len(), 1);
}

/// More conflicts in a row than the timers of a look are decided again together.
#[tokio::test]
async fn a_saga_that_others_were_faster_with_is_decided_again_at_once() {
    const FASTER: &str = "
        CREATE SEQUENCE faster;
        CREATE FUNCTION faster() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
            IF nextval('public.faster') <= 8 THEN RAISE EXCEPTION 'another was faster' USING ERRCODE = '40001'; END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER faster BEFORE UPDATE ON saga FOR EACH ROW EXECUTE FUNCTION faster()";
    let trip = Trip::new("{ deadline: 2s, attempts: 3, undo: { deadline: 5m, attempts: 2, backoff: 1s } }").await;
    let orchestrator = trip.orchestrator(&[]).await;
    sqlx::raw_sql(FASTER).execute(&trip.pool()).await.expect("the conflicts");
    let saga = trip.book().await;
    trip.awaits("hotel.requested", saga, 2).await;
    assert!(!orchestrator.log().contains("a timer cannot fire"), "a mere conflict is not put off");
}
