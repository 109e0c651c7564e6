//! I6: what cannot be processed never vanishes and never blocks.

use super::World;
use super::facts::topics::at;
use super::report::Finding;

/// Who reads each topic.
const GROUPS: &[(&str, &[&str])] = &[
    (
        "orchestrator",
        &[
            "order.created",
            "payment.successful",
            "payment.failed",
            "payment.refunded",
            "inventory.reserved",
            "inventory.rejected",
            "inventory.released",
            "shipping.scheduled",
            "shipping.failed",
            "shipping.cancelled",
        ],
    ),
    ("payment-svc", &["payment.requested", "payment.refund.requested"]),
    ("inventory-svc", &["inventory.requested", "inventory.release.requested", "order.completed"]),
    ("shipping-svc", &["shipping.requested", "shipping.cancel.requested"]),
    ("notification-svc", &["order.completed", "order.cancelled"]),
    ("order-api", &["order.completed", "order.cancelled", "order.parked"]),
];

/// The groups that read `topic`.
pub(super) fn groups(topic: &str) -> impl Iterator<Item = &'static str> {
    let readers = GROUPS.iter().filter(move |(_, topics)| topics.contains(&topic));
    readers.map(|(group, _)| *group)
}

/// Every topic of each group.
pub(super) fn subscriptions() -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    GROUPS.iter().map(|(group, topics)| (*group, *topics))
}

pub(super) fn check(world: &World) -> Finding {
    let mut finding = Finding::new("I6", "what cannot be processed is in the dead letters, with its cause");
    let topics = &world.topics;
    for letter in &topics.dead_letters {
        let place = at(&letter.place);
        finding.require(letter.reason.is_some() && letter.error.is_some() && letter.group.is_some(), || {
            format!("dead letter {place} does not say why or by whom")
        });
        let Some(origin) = &letter.origin else {
            finding.violation(format!("dead letter {place} does not say where it came from"));
            continue;
        };
        match topics.digests.get(origin) {
            Some(digest) => finding.require(letter.corrupted || *digest == letter.digest, || {
                format!("dead letter {place} has other bytes than {}", at(origin))
            }),
            // Retention takes the original before its letter.
            None => {
                let first = topics.first_offsets.get(&(origin.0.clone(), origin.1));
                finding.require(first.is_none_or(|first| origin.2 < *first), || {
                    format!("dead letter {place} names {}, where nothing is", at(origin))
                });
            }
        }
    }

    let mut waiting = 0;
    for foreign in &topics.foreign {
        for group in groups(&foreign.place.0) {
            let (topic, partition, offset) = &foreign.place;
            let committed = world.committed.get(&(group.to_owned(), topic.clone(), *partition));
            if committed.is_none_or(|committed| committed <= offset) {
                waiting += 1;
                continue;
            }
            let buried = topics.dead_letters.iter().any(|letter| {
                letter.origin.as_ref() == Some(&foreign.place)
                    && letter.group.as_deref() == Some(group)
                    && letter.digest == foreign.digest
            });
            finding.require(buried, || {
                format!("{} ({}) was passed by {group} and is in no dead letter", at(&foreign.place), foreign.fault)
            });
        }
    }
    finding.count("dead letters", topics.dead_letters.len());
    finding.count("messages nobody can process", topics.foreign.len());
    finding.count("of them not reached yet", waiting);
    finding
}
