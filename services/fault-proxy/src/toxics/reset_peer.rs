//! `reset_peer`: the connection is reset.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::{Attributes, Item, Stage, Verdict, after, milliseconds, until};

/// It is reset so long after the first byte, or the end, that gets here. An idle connection is left alone, as Toxiproxy
/// leaves it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ResetPeer {
    /// Milliseconds.
    #[serde(default)]
    timeout: i64,
}

pub(super) struct Abort {
    attributes: ResetPeer,
    /// When the first item came here.
    since: Option<Instant>,
}

impl Abort {
    pub(super) fn new(attributes: ResetPeer) -> Self {
        Self { attributes, since: None }
    }
}

impl Stage for Abort {
    fn decide(&mut self, head: Option<&mut Item>, now: Instant) -> Verdict {
        if head.is_some() {
            self.since.get_or_insert(now);
        }
        let Some(since) = self.since else { return Verdict::Hold };
        match after(since, milliseconds(self.attributes.timeout)) {
            Some(due) if due <= now => Verdict::Reset,
            due => until(due),
        }
    }

    fn update(&mut self, attributes: &Attributes) {
        if let Attributes::ResetPeer(new) = attributes {
            self.attributes = *new;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{data, ms};
    use super::*;

    #[test]
    fn the_first_byte_starts_the_clock() {
        let start = Instant::now();
        let mut abort = Abort::new(ResetPeer { timeout: 100 });
        assert_eq!(abort.decide(None, start), Verdict::Hold);
        let first = start + ms(50);
        assert_eq!(abort.decide(Some(&mut data(b"x", first)), first), Verdict::Wait(first + ms(100)));
        assert_eq!(abort.decide(None, first + ms(100)), Verdict::Reset);
    }
}
