//! `slow_close`: the end arrives later than the last byte.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::{Attributes, Item, Stage, Verdict, after, milliseconds, until};

/// The end is held back for so long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SlowClose {
    /// Milliseconds.
    #[serde(default)]
    delay: i64,
}

pub(super) struct Linger {
    attributes: SlowClose,
    /// When the end came here.
    since: Option<Instant>,
}

impl Linger {
    pub(super) fn new(attributes: SlowClose) -> Self {
        Self { attributes, since: None }
    }
}

impl Stage for Linger {
    fn decide(&mut self, head: Option<&mut Item>, now: Instant) -> Verdict {
        match head {
            None => Verdict::Hold,
            Some(Item::Data(_)) => Verdict::Pass,
            Some(Item::End(_)) => {
                let since = *self.since.get_or_insert(now);
                match after(since, milliseconds(self.attributes.delay)) {
                    Some(due) if due <= now => Verdict::Pass,
                    due => until(due),
                }
            }
        }
    }

    fn update(&mut self, attributes: &Attributes) {
        if let Attributes::SlowClose(new) = attributes {
            self.attributes = *new;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::End;
    use super::super::testing::{data, ms};
    use super::*;

    #[test]
    fn bytes_pass_and_the_end_waits() {
        let start = Instant::now();
        let mut linger = Linger::new(SlowClose { delay: 100 });
        assert_eq!(linger.decide(Some(&mut data(b"x", start)), start), Verdict::Pass);
        let mut end = Item::End(End::Finish);
        assert_eq!(linger.decide(Some(&mut end), start), Verdict::Wait(start + ms(100)));
        assert_eq!(linger.decide(Some(&mut end), start + ms(100)), Verdict::Pass);
    }
}
