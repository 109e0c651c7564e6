//! Message ids, derived and never drawn: what is produced again after a crash is the same message.
//!
//! Every id is a UUIDv5 in the namespace of the saga's own id. Attempts are not part of the name, so a
//! command that is sent five times is one message that was delivered five times.

use uuid::Uuid;

/// Id of the command that asks a participant to do `step`.
#[must_use]
pub fn command_id(saga: Uuid, step: &str) -> Uuid {
    derive(saga, step, "do")
}

/// Id of the command that asks a participant to undo `step`.
#[must_use]
pub fn undo_id(saga: Uuid, step: &str) -> Uuid {
    derive(saga, step, "undo")
}

/// Id of the participant's answer to [`command_id`], success or failure alike.
#[must_use]
pub fn reply_id(saga: Uuid, step: &str) -> Uuid {
    derive(saga, step, "do/reply")
}

/// Id of the participant's answer to [`undo_id`].
#[must_use]
pub fn undo_reply_id(saga: Uuid, step: &str) -> Uuid {
    derive(saga, step, "undo/reply")
}

/// Id of the event that tells the world that the saga came to rest at `version`. A saga that is parked
/// twice tells it twice, by two ids.
#[must_use]
pub fn end_event_id(saga: Uuid, topic: &str, version: u32) -> Uuid {
    Uuid::new_v5(&saga, format!("{topic}/{version}").as_bytes())
}

fn derive(saga: Uuid, step: &str, direction: &str) -> Uuid {
    Uuid::new_v5(&saga, format!("{step}/{direction}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_of_a_saga_has_its_own_id_and_always_the_same() {
        let saga = Uuid::from_u128(7);
        let ids = [
            command_id(saga, "payment"),
            undo_id(saga, "payment"),
            reply_id(saga, "payment"),
            undo_reply_id(saga, "payment"),
            command_id(saga, "inventory"),
            end_event_id(saga, "order.parked", 4),
            end_event_id(saga, "order.parked", 6),
        ];
        let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
        assert_eq!(command_id(saga, "payment"), Uuid::new_v5(&saga, b"payment/do"));
    }
}
