//! The order saga, which is a plain sequence.

use saga::{IgnoredReason, Input, Outcome, Phase, PoisonReason, Reply, ReplyKind, SagaState, ids};
use serde_json::json;
use uuid::Uuid;

use crate::definitions::ORDER;
use crate::script::{begin, begin_with};

#[test]
fn a_good_order_pays_reserves_ships_and_completes() {
    begin(&ORDER)
        .sends(["payment.requested"])
        .succeeds("payment")
        .sends(["inventory.requested"])
        .succeeds("inventory")
        .sends(["shipping.requested"])
        .succeeds("shipping")
        .sends(["order.completed"])
        .is(SagaState::Completed);
}

#[test]
fn commands_are_made_of_the_trigger_and_carry_derived_ids() {
    let trigger = json!({
        "orderId": "o-7", "customerId": "c-1", "total": 500, "currency": "EUR", "payment": {"token": "tok_ok"},
        "items": [{"sku": "SKU-001", "quantity": 2, "unitPrice": 250}], "shipping": {"city": "Paris"},
    });
    let mut script = begin_with(&ORDER, trigger);
    let command = script.sent().clone();
    assert_eq!(command.id, ids::command_id(script.saga.id, "payment"));
    assert_eq!(command.event_type, "com.chaossymphony.payment.requested.v1");
    assert_eq!(command.step.as_deref(), Some("payment"));
    assert_eq!(command.payload(), br#"{"amount":500,"currency":"EUR","orderId":"o-7","token":"tok_ok"}"#);
    script.succeeds("payment");
    assert_eq!(
        script.sent().data,
        json!({"orderId": "o-7", "items": [{"sku": "SKU-001", "quantity": 2, "unitPrice": 250}]})
    );
    script.succeeds("inventory");
    // what the trigger does not have is left out
    assert_eq!(script.sent().data["city"], "Paris");
    assert!(script.sent().data.get("street").is_none());
    script.succeeds("shipping");
    let end = script.sent();
    assert_eq!(end.id, ids::end_event_id(script.saga.id, "order.completed", 4));
    assert_eq!(end.data, json!({"orderId": "o-7", "status": "COMPLETED", "sagaVersion": 4, "customerId": "c-1"}));
    assert_eq!(end.time, script.saga.updated_at);
}

#[test]
fn a_declined_payment_cancels_at_once() {
    let mut script = begin(&ORDER);
    script.fails("payment", "card declined").sends(["order.cancelled"]).is(SagaState::Compensated);
    script.because("payment failed: card declined");
    script.step_is("payment", Phase::Failed).step_is("inventory", Phase::Skipped);
    script.fails("payment", "card declined");
    assert_eq!(script.sent().data["reason"], "payment failed: card declined");
}

#[test]
fn a_refused_shipment_releases_the_goods_and_then_the_money() {
    begin(&ORDER)
        .succeeds("payment")
        .succeeds("inventory")
        .fails("shipping", "not served")
        .sends(["inventory.release.requested"])
        .is(SagaState::Compensating)
        .confirms_undo("inventory")
        .sends(["payment.refund.requested"])
        .confirms_undo("payment")
        .sends(["order.cancelled"])
        .is(SagaState::Compensated)
        .because("shipping failed: not served");
}

#[test]
fn a_silent_participant_is_asked_four_times_and_then_undone() {
    let mut script = begin(&ORDER);
    let first = script.sent().clone();
    for _ in 0..3 {
        script.deadline_passes().sends(["payment.requested"]);
        assert_eq!(script.sent(), &first, "the same message, byte for byte");
    }
    script.deadline_passes().sends(["payment.refund.requested"]).is(SagaState::Compensating);
    script.because("payment: no answer in 4 attempts");
    script.succeeds("payment").is_ignored(IgnoredReason::Late);
    script.confirms_undo("payment").sends(["order.cancelled"]).is(SagaState::Compensated);
    script.succeeds("payment").is_ignored(IgnoredReason::Ended);
}

#[test]
fn a_pivot_that_is_silent_but_can_be_undone_turns_the_saga_back() {
    let mut script = begin(&ORDER);
    script.succeeds("payment").succeeds("inventory").deadlines_pass(4).sends(["shipping.cancel.requested"]);
    script.confirms_undo("shipping").sends(["inventory.release.requested"]);
}

#[test]
fn an_early_timer_does_nothing() {
    let mut script = begin(&ORDER);
    script.input(&Input::Tick).nothing_is_due();
    script.fails("payment", "no").input(&Input::Tick).nothing_is_due();
}

#[test]
fn a_duplicate_reply_sends_again_what_is_still_unanswered() {
    let mut script = begin(&ORDER);
    script.succeeds("payment");
    let command = script.sent().clone();
    script.succeeds("payment").repeats(["inventory.requested"]);
    assert_eq!(script.sent(), &command);
    script.succeeds("inventory").sends(["shipping.requested"]);
    // its command is answered by now
    script.succeeds("payment").repeats([]);
    script.fails("shipping", "no").sends(["inventory.release.requested"]);
    script.fails("shipping", "no").repeats(["inventory.release.requested"]);
    script.succeeds("inventory").repeats([]);
    script.confirms_undo("inventory").sends(["payment.refund.requested"]);
    script.confirms_undo("inventory").repeats(["payment.refund.requested"]);
    script.confirms_undo("payment").sends(["order.cancelled"]);
    script.confirms_undo("inventory").repeats([]);
    let version = script.saga.version;
    script.confirms_undo("payment").repeats(["order.cancelled"]);
    assert_eq!(script.saga.version, version);
}

#[test]
fn the_duplicate_of_the_last_reply_sends_the_end_event_again() {
    let mut script = begin(&ORDER);
    script.succeeds("payment").succeeds("inventory").succeeds("shipping");
    let end = script.sent().clone();
    script.succeeds("shipping").repeats(["order.completed"]);
    assert_eq!(script.sent(), &end);
    script.succeeds("payment").repeats([]);
}

#[test]
fn a_duplicate_trigger_sends_what_is_outstanding_or_the_end_event() {
    let mut script = begin(&ORDER);
    script.outstanding(["payment.requested"]);
    script.succeeds("payment").outstanding(["inventory.requested"]);
    script.fails("inventory", "none left").outstanding(["payment.refund.requested"]);
    script.confirms_undo("payment").outstanding(["order.cancelled"]);
}

#[test]
fn the_first_answer_counts() {
    let mut script = begin(&ORDER);
    script.succeeds("payment");
    script.fails("payment", "changed my mind").is_ignored(IgnoredReason::Contradicting);
    script.fails("inventory", "none left");
    script.succeeds("inventory").is_ignored(IgnoredReason::Contradicting);
}

#[test]
fn an_answer_to_something_that_was_never_asked_is_poison() {
    let mut script = begin(&ORDER);
    script.succeeds("inventory").is_poison(PoisonReason::NeverAsked);
    script.confirms_undo("payment").is_poison(PoisonReason::NeverAsked);
    script.succeeds("packing").is_poison(PoisonReason::UnknownStep);
    let stray = Reply {
        step: "payment".to_owned(),
        kind: ReplyKind::Success,
        message_id: Uuid::from_u128(9),
        causation_id: ids::command_id(Uuid::from_u128(10), "payment"),
        data: json!({}),
    };
    script.input(&Input::Reply(stray)).is_poison(PoisonReason::UnexpectedCausation);
}

#[test]
fn undos_back_off_up_to_their_maximum_and_then_park() {
    let mut script = begin(&ORDER);
    script.succeeds("payment").fails("inventory", "none left");
    let mut waits = Vec::new();
    for _ in 0..19 {
        let sent = script.now;
        script.deadline_passes().sends(["payment.refund.requested"]);
        waits.push((script.now - sent).num_seconds() - 15);
    }
    assert_eq!(waits[..10], [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
    assert_eq!(waits[18], 300);
    script.deadline_passes().sends(["order.parked"]).is(SagaState::Parked);
    script.because("payment: undo not confirmed in 20 attempts").outstanding(["order.parked"]);
}

#[test]
fn an_awaited_undo_that_is_confirmed_while_parked_lets_the_saga_go_on() {
    let mut script = begin(&ORDER);
    script.succeeds("payment").succeeds("inventory").fails("shipping", "not served");
    script.deadlines_pass(20).is(SagaState::Parked);
    script.confirms_undo("inventory").sends(["payment.refund.requested"]).is(SagaState::Compensating);
    script.because("shipping failed: not served");
    script.deadlines_pass(20).is(SagaState::Parked);
    script.confirms_undo("payment").sends(["order.cancelled"]).is(SagaState::Compensated);
}

#[test]
fn each_parking_is_told_by_an_event_of_its_own() {
    let mut script = begin(&ORDER);
    script.deadlines_pass(4 + 20).sends(["order.parked"]);
    let first = script.sent().clone();
    script.operator_retries().sends(["payment.refund.requested"]).is(SagaState::Compensating);
    script.because("payment: no answer in 4 attempts");
    script.deadlines_pass(20).sends(["order.parked"]);
    assert_ne!(script.sent().id, first.id);
}

#[test]
fn an_operator_can_resolve_what_is_parked() {
    let mut script = begin(&ORDER);
    script.operator_resolves(Outcome::Completed).is_refused("only a parked saga");
    script.deadlines_pass(24).operator_resolves(Outcome::Cancelled).sends(["order.cancelled"]);
    script.is(SagaState::Compensated).because("resolved by ada: settled by phone");
    script.confirms_undo("payment").is_ignored(IgnoredReason::Ended);
    script.operator_resolves(Outcome::Completed).is_refused("COMPENSATED");

    let mut script = begin(&ORDER);
    script.deadlines_pass(24).operator_resolves(Outcome::Completed).sends(["order.completed"]);
    script.is(SagaState::Completed);
}

#[test]
fn an_operator_can_turn_back_what_runs_and_what_is_parked() {
    let mut script = begin(&ORDER);
    script.succeeds("payment").operator_compensates().sends(["inventory.release.requested"]);
    script.because("compensated by ada: customer called");
    script.operator_compensates().is_refused("only a running or parked saga");
    script.succeeds("inventory").is_ignored(IgnoredReason::Late);
    script.deadlines_pass(20).is(SagaState::Parked);
    script.operator_compensates().sends(["inventory.release.requested"]).is(SagaState::Compensating);
    script.confirms_undo("inventory").confirms_undo("payment").is(SagaState::Compensated);
    script.operator_retries().is_refused("only a parked saga");
}

#[test]
fn a_reason_that_is_a_novel_is_cut() {
    let mut script = begin(&ORDER);
    script.fails("payment", &"ä".repeat(10_000));
    assert_eq!(script.saga.steps[0].reason.as_ref().map(|reason| reason.chars().count()), Some(500));
}
