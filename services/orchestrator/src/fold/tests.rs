//! Rule "Fold": the inputs of a batch are folded in their order and written once.
//! Rule "Duplicates": byte for byte what was sent before.

use serde_json::json;

use super::*;
use crate::fixtures::{SAGA, TRACE, at, definition, pinned, reply, trigger, undone};
use crate::store::TimerChange;

/// Folds `deliveries` one after the other, as one batch.
fn fold(stored: Option<Stored>, deliveries: &[Delivery<Inbound>]) -> Result<(Folded, Changes), Poison> {
    let mut fold = Fold::of(stored.map(|stored| (stored, pinned().definition)));
    for delivery in deliveries {
        let starts = Some(pinned()).filter(|pinned| pinned.definition.trigger().topic == delivery.topic);
        fold.take(delivery, starts, at(0))?;
    }
    let mut changes = Changes::default();
    Ok((fold.finish(&mut changes).expect("there is a saga"), changes))
}

/// The saga after `deliveries`, as the next batch loads it.
fn stored(deliveries: &[Delivery<Inbound>]) -> Stored {
    let (folded, _) = fold(None, deliveries).expect("no poison");
    Stored { saga: folded.saga, definition_id: 7, partition: 3, trace: Some(TRACE.to_owned()) }
}

fn topics(folded: &Folded) -> Vec<&str> {
    folded.outgoing.iter().map(|message| message.topic.as_str()).collect()
}

fn poison(stored: Option<Stored>, delivery: Delivery<Inbound>) -> &'static str {
    fold(stored, &[delivery]).err().expect("poison").reason
}

#[test]
fn a_trigger_starts_its_saga_with_the_first_command() {
    let (folded, changes) = fold(None, &[trigger()]).unwrap();
    assert_eq!(topics(&folded), ["hotel.requested"]);
    assert_eq!(folded.in_flight, 1);
    assert!(!changes.is_empty());
    let command = &folded.outgoing[0];
    assert_eq!((command.key.as_str(), command.saga_id), (SAGA.to_string().as_str(), Some(SAGA)));
    assert_eq!(command.traceparent.as_deref(), Some(TRACE));
    assert_eq!(command.payload, br#"{"city":"Paris"}"#);
}

#[test]
fn several_inputs_of_one_saga_become_one_row_and_an_entry_each() {
    let room = reply("hotel.reserved", "hotel", json!({"room": 12}));
    let booked = reply("flight.booked", "flight", json!({}));
    let (folded, _) = fold(Some(stored(&[trigger()])), &[room, booked]).unwrap();
    assert_eq!(folded.entries.iter().map(|entry| entry.version).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(topics(&folded), ["flight.requested", "trip.completed"]);
    assert_eq!(folded.in_flight, -1);
}

#[test]
fn a_duplicate_trigger_sends_again_what_is_unanswered_and_writes_nothing() {
    let first = fold(None, &[trigger()]).unwrap().0.outgoing;
    let (again, changes) = fold(Some(stored(&[trigger()])), &[trigger()]).unwrap();
    assert_eq!(again.outgoing, first, "byte for byte");
    assert!(changes.is_empty());
    assert_eq!(again.duplicates, 1);
}

#[test]
fn a_duplicate_reply_sends_again_only_what_it_caused_and_is_unanswered() {
    let room = reply("hotel.reserved", "hotel", json!({"room": 12}));
    let waiting = stored(&[trigger(), room.clone()]);
    let (again, changes) = fold(Some(waiting), std::slice::from_ref(&room)).unwrap();
    assert_eq!(topics(&again), ["flight.requested"]);
    assert!(changes.is_empty());

    let ended = stored(&[trigger(), room.clone(), reply("flight.booked", "flight", json!({}))]);
    assert!(topics(&fold(Some(ended), &[room]).unwrap().0).is_empty(), "its command is answered");
}

#[test]
fn the_reply_that_ended_a_saga_sends_the_end_event_again() {
    let inputs =
        [trigger(), reply("hotel.reserved", "hotel", json!({"room": 12})), reply("flight.booked", "flight", json!({}))];
    let first = fold(None, &inputs).unwrap().0.outgoing;
    let (again, _) = fold(Some(stored(&inputs)), &inputs[2..]).unwrap();
    assert_eq!(topics(&again), ["trip.completed"]);
    assert_eq!(again.outgoing.last(), first.last(), "byte for byte");
}

#[test]
fn no_message_goes_out_twice_for_one_batch() {
    let (folded, _) = fold(None, &[trigger(), trigger()]).unwrap();
    assert_eq!(topics(&folded), ["hotel.requested"]);
}

#[test]
fn no_command_follows_its_undo() {
    let refused = reply("flight.full", "flight", json!({"reason": "sold out"}));
    let turned = [trigger(), reply("hotel.reserved", "hotel", json!({"room": 12})), refused];
    let (again, _) = fold(Some(stored(&turned)), &turned).unwrap();
    assert_eq!(topics(&again), ["hotel.cancel.requested"], "every input again, and only the undo goes out");
}

#[test]
fn a_refusal_is_compensated_and_the_confirmation_ends_the_saga() {
    let refused = reply("hotel.full", "hotel", json!({"reason": "no rooms"}));
    let (ended, _) = fold(Some(stored(&[trigger()])), &[refused]).unwrap();
    assert_eq!(topics(&ended), ["trip.cancelled"], "a refusal needs no undo");

    let room = reply("hotel.reserved", "hotel", json!({"room": 12}));
    let refused = reply("flight.full", "flight", json!({"reason": "sold out"}));
    let turned = stored(&[trigger(), room, refused]);
    let (ended, _) = fold(Some(turned), &[undone("hotel.cancelled", "hotel")]).unwrap();
    assert_eq!(ended.saga.state, SagaState::Compensated);
    assert_eq!(topics(&ended), ["trip.cancelled"]);
}

#[test]
fn what_no_participant_sends_is_poison() {
    let running = || Some(stored(&[trigger()]));
    assert_eq!(poison(None, reply("hotel.reserved", "hotel", json!({}))), "unknown-saga");
    assert_eq!(poison(running(), reply("car.rented", "hotel", json!({}))), "unexpected-topic");
    assert_eq!(poison(running(), reply("hotel.reserved", "flight", json!({}))), "unexpected-step");
    assert_eq!(poison(running(), reply("flight.booked", "flight", json!({}))), "never-asked");
    let mut stray = reply("hotel.reserved", "hotel", json!({}));
    stray.message.kind = Kind::Reply { step: "hotel".to_owned(), causation: uuid::Uuid::from_u128(9) };
    assert_eq!(poison(running(), stray), "unexpected-causation");
    let mut other = trigger();
    other.topic = "voyage.booked".to_owned();
    assert_eq!(poison(running(), other), "saga-id-taken");
}

#[test]
fn replies_leave_a_timer_alone_unless_a_deadline_comes_earlier() {
    let started = stored(&[trigger()]).saga;
    assert_eq!(timer_change(None, &started), TimerChange::Due { at: at(10), emit: false });

    let room = Input::Reply(
        definition(crate::fixtures::ORDER_LIKE)
            .read_reply("hotel.reserved", SAGA, saga::ids::command_id(SAGA, "hotel"), json!({"room": 1}))
            .expect("a reply"),
    );
    let Verdict::Moved(later) = saga::apply(&pinned().definition, &started, &room, at(4)) else { panic!("it moves") };
    assert_eq!(timer_change(Some(&started), &later.saga), TimerChange::Keep, "due at 10 s, needed at 14 s");

    let mut sooner = later.saga.clone();
    sooner.steps[1].deadline = Some(at(5));
    assert_eq!(timer_change(Some(&later.saga), &sooner), TimerChange::Due { at: at(5), emit: false });

    let mut parked = later.saga.clone();
    parked.state = SagaState::Parked;
    parked.steps[1].deadline = None;
    assert_eq!(timer_change(Some(&later.saga), &parked), TimerChange::Park);
    assert_eq!(timer_change(Some(&parked), &later.saga), TimerChange::Due { at: at(14), emit: false });
}
