//! `noop`: does nothing, and counts what passes.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::{Attributes, Item, Stage, Verdict};

/// It has no attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Noop {}

pub(super) struct Nothing;

impl Stage for Nothing {
    fn decide(&mut self, head: Option<&mut Item>, _: Instant) -> Verdict {
        if head.is_some() { Verdict::Pass } else { Verdict::Hold }
    }

    fn update(&mut self, _: &Attributes) {}
}
