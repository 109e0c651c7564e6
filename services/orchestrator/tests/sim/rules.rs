//! What it is like without one of the rules that hold the platform together, and what must have happened in some world.

use std::collections::BTreeSet;

/// A rule that is switched off, to prove that the simulation would notice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Sabotage {
    #[default]
    None,
    /// A participant does a command each time it comes.
    NoDedupe,
    /// A participant that is told to undo what it does not know forgets it.
    NoTombstone,
    /// Offsets are committed before what the batch caused is published.
    OffsetsBeforeAcks,
    /// A transition by a deadline or an operator leaves no timer row that is due now.
    NoDueNowRow,
    /// order-api applies every end event that comes.
    AnyVersion,
    /// The orchestrator writes sagas whatever version they have by now.
    BlindWrites,
}

/// Things that happened in a world.
pub(crate) type Seen = BTreeSet<&'static str>;

/// What must happen somewhere, or the worlds are too calm to prove anything.
pub(crate) const TO_BE_SEEN: &[&str] = &[
    "a batch is split",
    "a commit of offsets is refused",
    "a deadline is followed by its messages once more",
    "a lost message is said again",
    "a message is published again",
    "a refusal is mended",
    "a saga is COMPENSATED",
    "a saga is COMPLETED",
    "a saga is resolved",
    "a saga was parked",
    "a tombstone is left",
    "a verb is refused",
    "an answer comes late",
    "an operator is too slow",
    "another replica is faster",
    "timers wait for answers",
];
