//! I1: every accepted order reaches exactly one end, or rests with a reason.

use super::World;
use super::overdue;
use super::report::Finding;

pub(super) fn check(world: &World) -> Finding {
    let mut finding = Finding::new("I1", "every accepted order reaches exactly one end, or rests PARKED with a reason");
    let (orders, sagas) = (&world.orders, &world.sagas);

    for order in orders.orders.values() {
        let id = order.id;
        if matches!(order.status.as_str(), "CANCELLED" | "PARKED") {
            finding.require(order.reasoned, || format!("order {id} is {} without a reason", order.status));
        }
        finding.require(order.lines > 0, || format!("order {id} has no line"));
        finding.require(order.total_minor == order.lines_total, || {
            format!("order {id} is over {} but its lines sum to {}", order.total_minor, order.lines_total)
        });
    }
    for (key, count) in &orders.shared_keys {
        finding.violation(format!("{count} orders share the Idempotency-Key {key:?}"));
    }

    // Sagas that were at rest: by now the order says the same, unless the saga went on meanwhile.
    let mut compared = 0;
    for before in &world.sagas_before.at_rest {
        let Some(saga) = sagas.sagas.get(&before.id) else {
            finding.violation(format!("saga {} was {} and is gone", before.id, before.state));
            continue;
        };
        if saga.version != before.version || !sagas.runs(saga, "order") {
            continue;
        }
        compared += 1;
        let Some(order) = orders.orders.get(&saga.id) else {
            finding.violation(format!("saga {} is {} but there is no such order", saga.id, saga.state));
            continue;
        };
        let told = order_status(&saga.state);
        finding.require(order.status == told, || {
            let (id, letter) = (saga.id, overdue::letter(world, saga.id));
            format!("saga {id} is {} at version {} but its order is {}{letter}", saga.state, saga.version, order.status)
        });
        finding.require(order.saga_version <= saga.version, || {
            format!("order {} knows version {} of a saga at {}", order.id, order.saga_version, saga.version)
        });
        if saga.state == "PARKED" {
            finding.require(saga.reason.is_some(), || format!("saga {} is PARKED without a reason", saga.id));
        }
    }

    // Orders that had an end: their saga has it too, and it is the same one for ever.
    for (id, status) in &world.orders_before.statuses {
        let saga = sagas.sagas.get(id);
        let agrees = saga.is_some_and(|saga| status == "PARKED" || order_status(&saga.state) == status);
        finding.require(agrees, || {
            format!("order {id} is {status} but its saga is {}", saga.map_or("missing", |saga| &saga.state))
        });
        let now = orders.orders.get(id).map_or("missing", |order| &order.status);
        finding.require(status == "PARKED" || now == status, || format!("order {id} was {status} and is {now}"));
    }

    // What is in flight can only go on while it has a timer.
    let mut timed = 0;
    for saga in sagas.in_flight() {
        timed += 1;
        finding.require(saga.due_at.is_some(), || format!("saga {} is {} without a timer", saga.id, saga.state));
    }

    let with_status = |status: &str| orders.orders.values().filter(|order| order.status == status).count();
    finding.count("orders", orders.orders.len());
    finding.count("COMPLETED", with_status("COMPLETED"));
    finding.count("CANCELLED", with_status("CANCELLED"));
    finding.count("PARKED", with_status("PARKED"));
    overdue::check(world, &mut finding);
    finding.count("sagas at rest compared", compared);
    finding.count("sagas in flight with a timer", timed);
    finding
}

/// How an order shows the state of its saga.
fn order_status(state: &str) -> &str {
    match state {
        "RUNNING" | "COMPENSATING" => "PENDING",
        "COMPENSATED" => "CANCELLED",
        other => other,
    }
}
