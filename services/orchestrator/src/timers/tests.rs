//! Rule "No Kafka input, no redelivery": an unsettled timer fires the same messages.
//! Rule "Backlog is not lateness": a deadline passes only up to the moment until which the answers are read.

use serde_json::json;

use super::*;
use crate::fixtures::{SAGA, TRACE, at, pinned};

fn started() -> Saga {
    let trigger = json!({"city": "Paris"});
    saga::start(&pinned().definition, SAGA, trigger, Uuid::from_u128(1), at(0)).saga
}

fn timer(saga: Saga, emit: bool) -> DueTimer {
    let version = saga.version;
    DueTimer { emit, version, stored: Stored { saga, definition_id: 7, partition: 3, trace: Some(TRACE.to_owned()) } }
}

fn topics(shot: &Shot) -> Vec<&str> {
    shot.messages.iter().map(|message| message.topic.as_str()).collect()
}

#[test]
fn a_deadline_that_is_over_sends_the_same_command_again() {
    let shot = shoot(&pinned().definition, &timer(started(), false), at(10), at(30));
    assert_eq!(topics(&shot), ["hotel.requested"]);
    assert_eq!(shot.messages[0].time, at(0), "the time of the first sending");
    assert_eq!(shot.messages[0].traceparent.as_deref(), Some(TRACE));
    assert_eq!(shot.settlement, Settlement { version: 2, next: Next::Due(at(40)) }, "patience counts from now");
}

#[test]
fn an_early_timer_is_moved_and_sends_nothing() {
    let shot = shoot(&pinned().definition, &timer(started(), false), at(9), at(30));
    assert!(shot.messages.is_empty() && shot.entries.is_empty());
    assert_eq!(shot.settlement, Settlement { version: 1, next: Next::Due(at(10)) });
}

#[test]
fn backlog_is_not_lateness() {
    // Due by the clock, but not yet when the replies were read to their end.
    let shot = shoot(&pinned().definition, &timer(started(), true), at(9), at(30));
    assert!(shot.entries.is_empty(), "no deadline passed before the cutoff");
}

#[test]
fn a_timer_that_was_not_settled_fires_the_same_messages_again() {
    let first = shoot(&pinned().definition, &timer(started(), false), at(10), at(10));
    let again = shoot(&pinned().definition, &timer(first.saga.clone(), true), at(10), at(11));
    assert!(again.entries.is_empty());
    assert_eq!(again.messages, first.messages);
}

#[test]
fn the_last_deadline_undoes_the_step_and_the_last_undo_parks() {
    let definition = pinned().definition;
    let mut saga = started();
    let mut sent = Vec::new();
    let mut last = Next::Removed;
    for round in 1..=4 {
        let now = at(round * 100);
        let shot = shoot(&definition, &timer(saga, false), now, now);
        sent.extend(topics(&shot).into_iter().map(str::to_owned));
        (saga, last) = (shot.saga, shot.settlement.next);
    }
    assert_eq!(sent, ["hotel.requested", "hotel.cancel.requested", "hotel.cancel.requested", "trip.parked"]);
    assert_eq!((saga.state, last), (SagaState::Parked, Next::Parked));
}

#[test]
fn the_timer_of_an_ended_saga_goes() {
    let mut saga = started();
    saga.state = SagaState::Completed;
    saga.steps.iter_mut().for_each(|step| step.deadline = None);
    let shot = shoot(&pinned().definition, &timer(saga, true), at(10), at(10));
    assert_eq!(topics(&shot), ["trip.completed"]);
    assert_eq!(shot.settlement.next, Next::Removed);
}
