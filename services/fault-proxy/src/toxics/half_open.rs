//! `half_open`: nothing gets through, neither bytes nor the end of the connection, and nothing is lost. The sender runs
//! into a full window. It is a network that is cut: when it is removed, everything goes on.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::{Attributes, Item, Stage, Verdict};

/// It has no attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HalfOpen {}

pub(super) struct Silence;

impl Stage for Silence {
    fn decide(&mut self, _: Option<&mut Item>, _: Instant) -> Verdict {
        Verdict::Hold
    }

    fn update(&mut self, _: &Attributes) {}
}
