//! I5: what was acknowledged survives.
//!
//! A message is published only after the commit that it tells of, so a message on a topic whose row is missing
//! tells of a commit that was lost; and a saga ends only after its messages were acknowledged, so a message of
//! an ended saga that is missing tells of an acknowledgement that was lost.

use std::collections::{BTreeSet, HashMap, HashSet};

use orders::topics::*;
use uuid::Uuid;

use super::World;
use super::facts::messages::{Message, at};
use super::report::Finding;

/// Whether the row that `message` tells of is there, by order id.
type Stored = fn(&World, Uuid, &Message) -> bool;

/// Every reply and what must be stored for it.
const REPLIES: &[(Topic, Stored)] = &[
    (PAYMENT_SUCCESSFUL, |world, order, message| {
        world.payments.payments.get(&order).is_some_and(|row| {
            row.payment_id == message.reference && matches!(row.state.as_str(), "CHARGED" | "REFUNDED")
        })
    }),
    (PAYMENT_FAILED, |world, order, _| {
        world.payments.payments.get(&order).is_some_and(|row| matches!(row.state.as_str(), "DECLINED" | "REFUSED"))
    }),
    (PAYMENT_REFUNDED, |world, order, _| world.payments.payments.get(&order).is_some_and(|row| row.undone)),
    (INVENTORY_RESERVED, |world, order, message| {
        world.inventory.reservations.get(&order).is_some_and(|row| {
            Some(row.reservation_id) == message.reference
                && matches!(row.state.as_str(), "RESERVED" | "RELEASED" | "SHIPPED")
        })
    }),
    (INVENTORY_REJECTED, |world, order, _| {
        let row = world.inventory.reservations.get(&order);
        row.is_some_and(|row| matches!(row.state.as_str(), "REJECTED" | "REFUSED"))
    }),
    (INVENTORY_RELEASED, |world, order, _| world.inventory.reservations.get(&order).is_some_and(|row| row.undone)),
    (SHIPPING_SCHEDULED, |world, order, message| {
        world.shipments.get(&order).is_some_and(|row| {
            row.shipment_id == message.reference && matches!(row.state.as_str(), "SCHEDULED" | "CANCELLED")
        })
    }),
    (SHIPPING_FAILED, |world, order, _| {
        world.shipments.get(&order).is_some_and(|row| matches!(row.state.as_str(), "FAILED" | "REFUSED"))
    }),
    (SHIPPING_CANCELLED, |world, order, _| world.shipments.get(&order).is_some_and(|row| row.undone)),
];

/// What the orchestrator sends.
const SENT: &[Topic] = &[
    PAYMENT_REQUESTED,
    PAYMENT_REFUND_REQUESTED,
    INVENTORY_REQUESTED,
    INVENTORY_RELEASE_REQUESTED,
    SHIPPING_REQUESTED,
    SHIPPING_CANCEL_REQUESTED,
    ORDER_COMPLETED,
    ORDER_CANCELLED,
    ORDER_PARKED,
];

pub(super) fn check(world: &World) -> Finding {
    let mut finding = Finding::new("I5", "what was acknowledged is still there");
    let mut replies = 0;
    for (topic, stored) in REPLIES {
        for message in world.topics.alive(*topic) {
            replies += 1;
            let is_stored = message.key.order().is_some_and(|order| stored(world, order, message));
            finding.require(is_stored, || {
                format!(
                    "{} of order {} at {} tells of a row that is not there",
                    topic.name,
                    message.key,
                    at(&message.place)
                )
            });
        }
    }

    let mut sent = HashSet::new();
    for topic in SENT {
        // What one group gave up was sent all the same.
        sent.extend(world.topics.on(*topic).map(|message| message.id));
        for message in world.topics.alive(*topic) {
            finding.require(world.sagas.emitted.contains(&message.id), || {
                format!("{} of order {} at {} belongs to no transition", topic.name, message.key, at(&message.place))
            });
        }
    }

    // Only where retention has removed nothing can something be missing.
    let is_whole = |partition: i32| SENT.iter().all(|topic| world.topics.is_whole(*topic, Some(partition)));
    let partitions: BTreeSet<i32> = world.sagas_before.at_rest.iter().map(|saga| saga.partition).collect();
    let whole: BTreeSet<i32> = partitions.into_iter().filter(|partition| is_whole(*partition)).collect();
    let at_rest: HashMap<Uuid, i32> = world.sagas_before.at_rest.iter().map(|saga| (saga.id, saga.partition)).collect();
    let (mut acknowledged, mut unknown) = (0, 0);
    for entry in &world.sagas.timeline {
        let ended = world.sagas.sagas.get(&entry.saga_id).is_some_and(|saga| saga.is_terminal());
        let Some(partition) = at_rest.get(&entry.saga_id).filter(|_| ended) else { continue };
        for id in &entry.emitted {
            if !sent.contains(id) && !whole.contains(partition) {
                unknown += 1;
                continue;
            }
            acknowledged += 1;
            finding.require(sent.contains(id), || {
                format!("message {id} of saga {}, version {}, is on no topic", entry.saga_id, entry.version)
            });
        }
    }
    finding.count("replies with their row", replies);
    finding.count("messages of the orchestrator", sent.len());
    finding.count("of ended sagas on their topic", acknowledged);
    if unknown > 0 {
        finding.count("that retention may have removed", unknown);
    }
    finding
}
