//! `timeout`: a black hole. Bytes vanish; after a while, or when the toxic is removed, the connection is closed.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::{Attributes, Item, Stage, Verdict, after, milliseconds, until};

/// The connection is closed after so long; after 0, never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Timeout {
    /// Milliseconds since the toxic came, or since the connection was opened if it was there already.
    #[serde(default)]
    timeout: i64,
}

pub(super) struct BlackHole {
    attributes: Timeout,
    since: Instant,
}

impl BlackHole {
    pub(super) fn new(attributes: Timeout, now: Instant) -> Self {
        Self { attributes, since: now }
    }

    fn due(&self) -> Option<Instant> {
        let timeout = milliseconds(self.attributes.timeout);
        if timeout.is_zero() { None } else { after(self.since, timeout) }
    }
}

impl Stage for BlackHole {
    fn decide(&mut self, head: Option<&mut Item>, now: Instant) -> Verdict {
        let due = self.due();
        match head {
            _ if due.is_some_and(|due| due <= now) => Verdict::Close,
            Some(Item::Data(_)) => Verdict::Drop,
            Some(Item::End(_)) => Verdict::Pass,
            None => until(due),
        }
    }

    fn update(&mut self, attributes: &Attributes) {
        if let Attributes::Timeout(new) = attributes {
            self.attributes = *new;
        }
    }

    /// Bytes are missing: a stream with a hole must not go on.
    fn closes_when_removed(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{data, ms};
    use super::*;

    #[test]
    fn bytes_vanish_until_the_time_is_over_even_if_nothing_comes() {
        let start = Instant::now();
        let mut hole = BlackHole::new(Timeout { timeout: 100 }, start);
        let due = start + ms(100);
        assert_eq!(hole.decide(Some(&mut data(b"x", start)), start + ms(99)), Verdict::Drop);
        assert_eq!(hole.decide(None, start + ms(99)), Verdict::Wait(due));
        assert_eq!(hole.decide(None, due), Verdict::Close);
        assert!(hole.closes_when_removed());
    }

    #[test]
    fn without_a_time_it_is_never_over() {
        let start = Instant::now();
        let mut hole = BlackHole::new(Timeout::default(), start);
        assert_eq!(hole.decide(Some(&mut data(b"x", start)), start + ms(1_000_000)), Verdict::Drop);
        assert_eq!(hole.decide(None, start + ms(1_000_000)), Verdict::Hold);
    }
}
