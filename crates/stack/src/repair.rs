//! Looks at everything between the outbox and its readers, says what is wrong, and mends it when told to.
//!
//! `symphony repair` is its command. What heals itself is among it too: whoever does not want to wait need not.

mod look;
mod mend;

pub use look::look;
pub use mend::{make_topics, mend, refill_owed};

use crate::layout::Repository;
use crate::provision::Names;
use crate::servers::Endpoints;

/// What can be wrong and mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// Topics that are missing.
    Topics,
    /// The publication of the outbox.
    Publication,
    /// The replication slot.
    Slot,
    /// The connector in Kafka Connect.
    Connector,
    /// Consumer groups whose offsets are behind the end.
    Groups,
    /// Orders that have not ended everywhere.
    Orders,
}

impl Part {
    /// All, in the order in which they are mended: each needs those before it.
    pub const ALL: [Self; 6] =
        [Self::Topics, Self::Publication, Self::Slot, Self::Connector, Self::Groups, Self::Orders];

    /// Its word on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Topics => "topics",
            Self::Publication => "publication",
            Self::Slot => "slot",
            Self::Connector => "connector",
            Self::Groups => "groups",
            Self::Orders => "orders",
        }
    }
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// Where.
    pub part: Part,
    /// What.
    pub problem: String,
    /// What `symphony repair` does about it; none when it can do nothing.
    pub repair: Option<String>,
}

/// The stack that is looked at.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its servers.
    pub endpoints: Endpoints,
    /// What it should be like.
    pub repository: Repository,
    /// How its things are called.
    pub names: Names,
}
