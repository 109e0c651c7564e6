//! I7: a message delivered again is the same message, and changes nothing more.

use std::collections::HashMap;

use uuid::Uuid;

use super::World;
use super::facts::messages::{Message, at};
use super::report::Finding;

pub(super) fn check(world: &World) -> Finding {
    let mut finding = Finding::new("I7", "a message that comes again is the same, byte for byte, and has one effect");
    let (mut messages, mut again) = (0, 0);
    let mut first: HashMap<Uuid, &Message> = HashMap::new();
    for topic in orders::topics::ALL {
        for message in world.topics.alive(*topic) {
            messages += 1;
            let Some(known) = first.get(&message.id) else {
                first.insert(message.id, message);
                continue;
            };
            again += 1;
            let same = known.place.0 == message.place.0 && known.key == message.key && known.digest == message.digest;
            finding.require(same, || {
                format!("message {} at {} differs from {}", message.id, at(&message.place), at(&known.place))
            });
            finding.require(known.place.1 == message.place.1 || known.key != message.key, || {
                format!("key {} is on two partitions: {} and {}", message.key, at(&known.place), at(&message.place))
            });
        }
    }

    // One cause, one transition: a second entry for a message means it was taken twice.
    let mut taken: HashMap<Uuid, (Uuid, i32)> = HashMap::new();
    for entry in &world.sagas.timeline {
        let Some(id) = entry.message_id else { continue };
        if let Some((saga, version)) = taken.insert(id, (entry.saga_id, entry.version)) {
            finding.violation(format!(
                "message {id} moved saga {saga} to version {version} and saga {} to version {}",
                entry.saga_id, entry.version
            ));
        }
    }
    finding.count("messages", messages);
    finding.count("delivered again", again);
    finding.count("transitions by a message", taken.len());
    finding
}
