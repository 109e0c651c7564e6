//! Steps side by side, and steps past the pivot.

use saga::{IgnoredReason, Phase, SagaState};
use serde_json::json;

use crate::definitions::{PARCEL, REPORT, TRIP};
use crate::script::{Script, begin, begin_with};

#[test]
fn independent_steps_run_side_by_side_and_meet_again() {
    let mut script = begin_with(&TRIP, json!({"legs": [{"from": "CDG"}]}));
    script.sends(["quote.requested"]);
    script.succeeds_with("quote", json!({"price": 120})).sends(["flight.requested", "hotel.requested"]);
    script.outstanding(["flight.requested", "hotel.requested"]);
    script.succeeds_with("flight", json!({"ticket": "T-1"})).sends(["insurance.requested"]);
    assert_eq!(script.sent().data["ticket"], "T-1");
    script.succeeds("insurance").sends([]);
    script.succeeds("hotel").sends(["charge.requested"]);
    script.succeeds("payment").sends(["trip.completed"]).is(SagaState::Completed);
    assert_eq!(script.sent().data["ticket"], "T-1");
}

#[test]
fn commands_use_outputs_constants_and_places_in_lists() {
    let mut script = begin_with(&TRIP, json!({"legs": [{"from": "CDG"}]}));
    let id = script.saga.id.to_string();
    script.succeeds_with("quote", json!({"price": 120})).succeeds("hotel");
    script.deadline_passes();
    assert_eq!(script.sent().data, json!({"trip": id, "price": 120, "from": "CDG", "class": "economy"}));
}

#[test]
fn a_duplicate_sends_only_what_its_own_input_had_sent() {
    let mut script = begin(&TRIP);
    script.succeeds("quote").succeeds("flight").succeeds("hotel");
    script.succeeds("quote").repeats([]);
    script.succeeds("hotel").repeats([]);
    script.succeeds("flight").repeats(["insurance.requested"]);
}

#[test]
fn a_step_in_flight_beside_one_that_fails_is_unknown_and_undone_too() {
    let mut script = begin(&TRIP);
    script.succeeds("quote").succeeds("flight");
    // insurance and hotel are in flight; flight is undone only after insurance
    script.fails("hotel", "full").sends(["insurance.cancel.requested"]);
    script.step_is("flight", Phase::Succeeded).step_is("payment", Phase::Skipped).step_is("quote", Phase::Succeeded);
    script.succeeds("insurance").is_ignored(IgnoredReason::Late);
    script.confirms_undo("insurance").sends(["flight.cancel.requested"]);
    script.confirms_undo("flight").sends(["trip.cancelled"]).is(SagaState::Compensated);
}

#[test]
fn the_undo_of_a_step_that_never_answered_goes_without_its_output() {
    let mut script = begin(&TRIP);
    script.succeeds("quote").fails("hotel", "full").sends(["flight.cancel.requested"]);
    assert!(script.sent().data.get("ticket").is_none());

    let mut script = begin(&TRIP);
    script.succeeds("quote").succeeds_with("flight", json!({"ticket": "T-1"}));
    script.fails("hotel", "full").confirms_undo("insurance").sends(["flight.cancel.requested"]);
    assert_eq!(script.sent().data["ticket"], "T-1");
}

#[test]
fn undos_side_by_side_park_together_and_one_answer_resumes_both() {
    let mut script = begin(&TRIP);
    script.succeeds("quote").operator_compensates().sends(["flight.cancel.requested", "hotel.cancel.requested"]);
    // flight has two attempts, hotel three
    while script.saga.state != SagaState::Parked {
        script.deadline_passes();
    }
    script.because("flight: undo not confirmed in 2 attempts").step_is("hotel", Phase::Undoing);
    script.confirms_undo("hotel").sends(["flight.cancel.requested"]).is(SagaState::Compensating);
    script.confirms_undo("flight").sends(["trip.cancelled"]);
}

#[test]
fn a_pivot_that_cannot_be_undone_parks_when_it_stays_silent() {
    let mut script = at_the_pivot();
    script.operator_compensates().is_refused("payment was requested and has no compensation");
    script.deadlines_pass(2).sends(["trip.parked"]).is(SagaState::Parked);
    script.because("payment: no answer in 2 attempts").step_is("payment", Phase::Unknown);
    script.succeeds("payment").is_ignored(IgnoredReason::Late);
    script.operator_compensates().is_refused("payment was requested and has no compensation");
    script.operator_retries().sends(["charge.requested"]).is(SagaState::Running);
    assert_eq!(script.saga.reason, None);
    script.succeeds("payment").sends(["trip.completed"]);
}

#[test]
fn a_pivot_that_refuses_turns_the_saga_back() {
    let mut script = at_the_pivot();
    script.fails("payment", "declined").sends(["hotel.cancel.requested", "insurance.cancel.requested"]);
}

fn at_the_pivot() -> Script {
    let mut script = begin(&TRIP);
    script.succeeds("quote").succeeds("flight").succeeds("hotel").succeeds("insurance").sends(["charge.requested"]);
    script
}

#[test]
fn past_the_pivot_a_refusal_parks_and_the_rest_waits() {
    let mut script = past_the_pivot();
    script.fails("delivery", "nobody home").sends(["parcel.parked"]).is(SagaState::Parked);
    script.because("delivery failed: nobody home").step_is("receipt", Phase::Unknown).step_is("rating", Phase::Waiting);
    script.fails("delivery", "nobody home").repeats(["parcel.parked"]);
    script.succeeds("receipt").is_ignored(IgnoredReason::Late);
    script.operator_retries().sends(["delivery.requested", "receipt.requested"]).is(SagaState::Running);
    script.succeeds("delivery").sends(["rating.requested"]);
    script.succeeds("receipt").succeeds("rating").sends(["parcel.completed"]).is(SagaState::Completed);
}

#[test]
fn past_the_pivot_silence_parks() {
    let mut script = past_the_pivot();
    script.succeeds("receipt").deadlines_pass(2).sends(["parcel.parked"]);
    script.because("delivery: no answer in 2 attempts");
}

#[test]
fn past_the_pivot_an_operator_cannot_turn_back_a_running_saga() {
    past_the_pivot().operator_compensates().is_refused("the pivot has succeeded");
}

#[test]
fn a_parked_saga_can_be_turned_back_while_nothing_past_the_pivot_succeeded() {
    let mut script = past_the_pivot();
    script.fails("delivery", "nobody home").operator_compensates().sends(["pickup.return.requested"]);
    script.confirms_undo("pickup").sends(["postage.refund.requested"]);
    script.confirms_undo("postage").sends(["parcel.cancelled"]).is(SagaState::Compensated);

    let mut script = past_the_pivot();
    script.succeeds("receipt").fails("delivery", "nobody home");
    script.operator_compensates().is_refused("receipt has succeeded, which is past the pivot");
}

#[test]
fn a_refusal_after_an_operators_retry_no_longer_proves_that_nothing_was_done() {
    let mut script = past_the_pivot();
    script.fails("delivery", "nobody home").operator_retries();
    // the old refusal, delivered again, while the participant may be doing it
    script.fails("delivery", "nobody home").sends(["parcel.parked"]);
    script.operator_compensates().sends(["delivery.recall.requested"]).step_is("delivery", Phase::Undoing);
}

#[test]
fn an_answer_after_an_operators_retry_ran_out_too_is_late() {
    let mut script = past_the_pivot();
    script.succeeds("receipt").fails("delivery", "nobody home").operator_retries();
    script.deadlines_pass(2).is(SagaState::Parked).step_is("delivery", Phase::Unknown);
    script.succeeds("delivery").is_ignored(IgnoredReason::Late);
    script.fails("delivery", "nobody home").is_ignored(IgnoredReason::Late);
}

fn past_the_pivot() -> Script {
    let mut script = begin(&PARCEL);
    script.succeeds("postage").succeeds("pickup").sends(["delivery.requested", "receipt.requested"]);
    script
}

#[test]
fn a_saga_with_nothing_to_undo_is_cancelled_at_once() {
    begin(&REPORT).deadline_passes().sends(["report.cancelled"]).is(SagaState::Compensated);
    begin(&REPORT).operator_compensates().sends(["report.cancelled"]).is(SagaState::Compensated);
    let mut script = begin(&REPORT);
    script.succeeds("collect").succeeds("publish").fails("archive", "no").is(SagaState::Parked);
    script.operator_compensates().sends(["report.cancelled"]).is(SagaState::Compensated);
}
