//! I6: what cannot be processed never vanishes and never blocks.

use orders::readers::readers;

use super::World;
use super::facts::messages::at;
use super::report::Finding;

pub(super) fn check(world: &World) -> Finding {
    let mut finding = Finding::new("I6", "what cannot be processed is in the dead letters, with its cause");
    let topics = &world.topics;
    for letter in &topics.dead_letters {
        let place = at(&letter.place);
        finding.require(letter.reason.is_some() && letter.has_error && letter.group.is_some(), || {
            format!("dead letter {place} does not say why or by whom")
        });
        let Some(origin) = &letter.origin else {
            finding.violation(format!("dead letter {place} does not say where it came from"));
            continue;
        };
        if topics.lost.contains(&*origin.0) {
            // The original may have gone with the topic, and another message be in its place.
            continue;
        }
        match topics.original(origin) {
            Some(original) => finding.require(letter.is_copy_of(&original), || {
                format!("dead letter {place} has other bytes than {}", at(origin))
            }),
            // Retention takes the original before its letter, and a letter that came meanwhile may have an original
            // that did so too.
            None => {
                let extent = topics.extent(origin);
                let is_possible = extent
                    .is_some_and(|extent| origin.2 < extent.low || (extent.read..extent.high).contains(&origin.2));
                finding.require(is_possible, || format!("dead letter {place} names {}, where nothing is", at(origin)));
            }
        }
    }

    let mut waiting = 0;
    for (place, foreign) in &topics.foreign {
        for group in readers(&place.0) {
            if !topics.has_passed(group, place) {
                waiting += 1;
                continue;
            }
            let buried = topics.dead_letters.iter().any(|letter| {
                letter.origin.as_ref() == Some(place)
                    && letter.group.as_deref() == Some(group)
                    && letter.is_copy_of(&foreign.original)
            });
            finding.require(buried, || {
                format!("{} ({}) was passed by {group} and is in no dead letter", at(place), foreign.fault)
            });
        }
    }
    finding.count("dead letters", topics.dead_letters.len());
    finding.count("messages nobody can process", topics.foreign.len());
    finding.count("of them not reached yet", waiting);
    finding
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use orders::readers::READERS;
    use saga::Definition;

    #[test]
    fn the_orchestrator_reads_what_the_order_saga_waits_for() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../sagas/order.yaml");
        let yaml = std::fs::read_to_string(file).expect("the definition");
        let definition = Definition::parse(&yaml, file).expect("a definition");
        let replies = definition.reply_channels().map(|(topic, _)| topic);
        let awaited: BTreeSet<&str> = replies.chain([definition.trigger().topic.as_str()]).collect();
        let (_, topics) = READERS.iter().find(|(group, _)| *group == "orchestrator").expect("the orchestrator");
        assert_eq!(topics.iter().map(|topic| topic.name).collect::<BTreeSet<_>>(), awaited);
    }
}
