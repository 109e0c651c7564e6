//! I3: each step takes effect at most once and is undone at most once.

use std::collections::HashMap;

use orders::topics::{
    INVENTORY_REJECTED, INVENTORY_RESERVED, PAYMENT_FAILED, PAYMENT_SUCCESSFUL, SHIPPING_FAILED, SHIPPING_SCHEDULED,
    Topic,
};
use uuid::Uuid;

use super::World;
use super::facts::messages::at;
use super::facts::participants::LedgerEntry;
use super::facts::sagas::SagaRow;
use super::report::Finding;

/// Charges and refunds of one order.
#[derive(Default)]
struct Money<'a> {
    charges: Vec<&'a LedgerEntry>,
    refunds: Vec<&'a LedgerEntry>,
}

pub(super) fn check(world: &World) -> Finding {
    let mut finding = Finding::new("I3", "per saga and step at most one effect and one undo; the end says which");
    let mut money: HashMap<Uuid, Money<'_>> = HashMap::new();
    for entry in &world.payments.ledger {
        let of_order = money.entry(entry.order_id).or_default();
        if entry.kind == "CHARGE" { of_order.charges.push(entry) } else { of_order.refunds.push(entry) }
    }

    once(world, &money, &mut finding);
    asked_for(world, &mut finding);
    told_once(world, &mut finding);
    let (mut completed, mut compensated) = (0, 0);
    for saga in world.ended() {
        let none = Money::default();
        let money = money.get(&saga.id).unwrap_or(&none);
        if saga.state == "COMPLETED" {
            completed += 1;
            took_effect(world, saga, money, &mut finding);
        } else {
            compensated += 1;
            nothing_left(world, saga, money, &mut finding);
        }
    }
    finding.count("COMPLETED with every effect", completed);
    finding.count("CANCELLED with no net effect", compensated);
    finding.count("payments", world.payments.payments.len());
    finding.count("reservations", world.inventory.reservations.len());
    finding.count("shipments", world.shipments.len());
    finding
}

/// What each participant's own rows say, whatever the saga is doing.
fn once(world: &World, money: &HashMap<Uuid, Money<'_>>, finding: &mut Finding) {
    for (order, money) in money {
        let (charges, refunds) = (money.charges.len(), money.refunds.len());
        finding.require(charges <= 1, || format!("order {order} was charged {charges} times"));
        finding
            .require(refunds <= charges, || format!("order {order} was charged {charges} times, refunded {refunds}"));
        if let ([charge], [refund]) = (money.charges.as_slice(), money.refunds.as_slice()) {
            finding.require(charge.amount == refund.amount && charge.currency == refund.currency, || {
                format!(
                    "order {order}: {} {} charged, {} {} refunded",
                    charge.amount, charge.currency, refund.amount, refund.currency
                )
            });
        }
        finding.require(world.payments.payments.contains_key(order), || {
            format!("order {order} is in the ledger without a payment")
        });
    }
    for payment in world.payments.payments.values() {
        let none = Money::default();
        let money = money.get(&payment.order_id).unwrap_or(&none);
        let expected = match payment.state.as_str() {
            "CHARGED" => (1, 0),
            "REFUNDED" => (1, 1),
            _ => (0, 0),
        };
        let found = (money.charges.len(), money.refunds.len());
        finding.require(found == expected, || {
            format!(
                "payment of order {} is {} with {} charges and {} refunds",
                payment.order_id, payment.state, found.0, found.1
            )
        });
    }
}

/// No participant did what no saga asked for. The orchestrator was read last, so it knows of every effect.
fn asked_for(world: &World, finding: &mut Finding) {
    let of_payment = world.payments.payments.keys().map(|order| ("payment", order));
    let of_inventory = world.inventory.reservations.keys().map(|order| ("reservation", order));
    let of_shipping = world.shipments.keys().map(|order| ("shipment", order));
    for (what, order) in of_payment.chain(of_inventory).chain(of_shipping) {
        finding
            .require(world.sagas.sagas.contains_key(order), || format!("{what} of order {order} belongs to no saga"));
    }
}

/// A step's answers on its two topics: they tell of one effect, or of one refusal.
fn told_once(world: &World, finding: &mut Finding) {
    const ANSWERS: &[(Topic, Topic)] = &[
        (PAYMENT_SUCCESSFUL, PAYMENT_FAILED),
        (INVENTORY_RESERVED, INVENTORY_REJECTED),
        (SHIPPING_SCHEDULED, SHIPPING_FAILED),
    ];
    for (done, refused) in ANSWERS {
        let mut effects: HashMap<(Option<Uuid>, Option<&str>), Option<Uuid>> = HashMap::new();
        for message in world.topics.alive(*done) {
            let step = (message.saga, message.step.as_deref());
            let first = *effects.entry(step).or_insert(message.reference);
            finding.require(first == message.reference, || {
                format!("{} of order {} tells of a second effect at {}", done.name, message.key, at(&message.place))
            });
        }
        for message in world.topics.alive(*refused) {
            let step = (message.saga, message.step.as_deref());
            finding.require(!effects.contains_key(&step), || {
                format!("{} of order {} at {}: it was done as well", refused.name, message.key, at(&message.place))
            });
        }
    }
}

fn took_effect(world: &World, saga: &SagaRow, money: &Money<'_>, finding: &mut Finding) {
    let id = saga.id;
    let payment = world.payments.payments.get(&id).map_or("missing", |payment| &payment.state);
    finding.require(payment == "CHARGED", || format!("order {id} COMPLETED but its payment is {payment}"));
    let reservation = world.inventory.reservations.get(&id).map_or("missing", |reservation| &reservation.state);
    finding.require(reservation == "SHIPPED", || format!("order {id} COMPLETED but its stock is {reservation}"));
    let shipment = world.shipments.get(&id).map_or("missing", |shipment| &shipment.state);
    finding.require(shipment == "SCHEDULED", || format!("order {id} COMPLETED but its shipment is {shipment}"));
    if let (Some(order), [charge]) = (world.orders.orders.get(&id), money.charges.as_slice()) {
        finding.require(charge.amount == order.total_minor && charge.currency == order.currency, || {
            format!(
                "order {id} is over {} {} but {} {} were charged",
                order.total_minor, order.currency, charge.amount, charge.currency
            )
        });
    }
}

fn nothing_left(world: &World, saga: &SagaRow, money: &Money<'_>, finding: &mut Finding) {
    let id = saga.id;
    let net: i64 = money.charges.iter().map(|entry| entry.amount).sum::<i64>()
        - money.refunds.iter().map(|entry| entry.amount).sum::<i64>();
    finding.require(net == 0, || format!("order {id} CANCELLED but {net} stay charged"));
    let effects = [
        ("payment", world.payments.payments.get(&id).map(|payment| payment.state.as_str())),
        ("stock", world.inventory.reservations.get(&id).map(|reservation| reservation.state.as_str())),
        ("shipment", world.shipments.get(&id).map(|shipment| shipment.state.as_str())),
    ];
    for (what, state) in effects {
        let zero = matches!(
            state,
            None | Some("DECLINED" | "REFUNDED" | "REFUSED" | "REJECTED" | "RELEASED" | "FAILED" | "CANCELLED")
        );
        finding.require(zero, || format!("order {id} CANCELLED but its {what} is {}", state.unwrap_or_default()));
    }
}
