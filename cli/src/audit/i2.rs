//! I2: the outbox and its topic tell the same.

use std::collections::{HashMap, HashSet};

use orders::topics::ORDER_CREATED;
use uuid::Uuid;

use super::World;
use super::facts::messages::at;
use super::report::Finding;

pub(super) fn check(world: &World) -> Finding {
    let mut finding =
        Finding::new("I2", "every committed outbox row is published, every published event was committed");
    let orders = &world.orders;
    let published: HashSet<Uuid> = world.topics.on(ORDER_CREATED).map(|message| message.id).collect();

    // An order and its outbox row are one transaction.
    let announced: HashSet<&str> = orders.outbox.values().map(|row| row.aggregateid.as_str()).collect();
    for order in orders.orders.values() {
        // Days later the outbox lets go of its rows.
        let kept = orders.oldest_outbox.is_some_and(|oldest| oldest < order.created_at);
        finding.require(!kept || announced.contains(order.id.to_string().as_str()), || {
            format!("order {} has no outbox row", order.id)
        });
    }
    for id in &orders.contradictory {
        finding.violation(format!("outbox rows of id {id} say different things"));
    }

    // Retention may have removed what is missing, but only from where it has removed something. The partition of an
    // event is known from its saga, and a saga that was at rest before had its event for certain.
    let is_whole = world.topics.is_whole(ORDER_CREATED, None);
    let at_rest: HashMap<String, i32> =
        world.sagas_before.at_rest.iter().map(|saga| (saga.id.to_string(), saga.partition)).collect();
    let (mut expected, mut unknown) = (0, 0);
    for id in &world.orders_before.outbox {
        let Some(row) = orders.outbox.get(id) else { continue };
        let partition = at_rest.get(&row.aggregateid).copied();
        let is_due = is_whole || partition.is_some_and(|number| world.topics.is_whole(ORDER_CREATED, Some(number)));
        if published.contains(id) || is_due {
            expected += 1;
            finding.require(published.contains(id), || {
                format!("outbox row {id} of order {}, committed {}, is not published", row.aggregateid, row.created_at)
            });
        } else {
            unknown += 1;
        }
    }

    let mut events = 0;
    for message in world.topics.alive(ORDER_CREATED) {
        events += 1;
        let place = at(&message.place);
        let Some(row) = orders.outbox.get(&message.id) else {
            let order = message.key.order().and_then(|id| orders.orders.get(&id));
            // Its row may have been dropped with its day, never its order.
            let dropped =
                order.is_some_and(|order| orders.oldest_outbox.is_none_or(|oldest| oldest >= order.created_at));
            finding.require(dropped, || format!("event {} at {place} belongs to no outbox row", message.id));
            continue;
        };
        finding.require(row.aggregateid == message.key.to_string() && row.digest == message.digest, || {
            format!("event {} at {place} differs from its outbox row", message.id)
        });
        finding.require(row.aggregatetype == ORDER_CREATED.name && row.event_type == ORDER_CREATED.event_type, || {
            format!("outbox row {} is of type {} for {}", row.id, row.event_type, row.aggregatetype)
        });
    }

    finding.count("outbox rows", orders.outbox.len());
    finding.count("of them due on the topic", expected);
    finding.count("events", events);
    if unknown > 0 {
        finding.count("rows whose event retention may have removed", unknown);
    }
    finding
}
