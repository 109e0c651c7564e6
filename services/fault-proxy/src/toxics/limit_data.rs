//! `limit_data`: the connection is closed after so many bytes.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::{Attributes, Item, Stage, Verdict};

/// So many bytes get through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LimitData {
    /// Bytes.
    #[serde(default)]
    bytes: i64,
}

pub(super) struct Cut {
    attributes: LimitData,
    /// Bytes that went through since the toxic came.
    passed: u64,
}

impl Cut {
    pub(super) fn new(attributes: LimitData) -> Self {
        Self { attributes, passed: 0 }
    }
}

impl Stage for Cut {
    fn decide(&mut self, head: Option<&mut Item>, _: Instant) -> Verdict {
        let left = u64::try_from(self.attributes.bytes).unwrap_or(0).saturating_sub(self.passed);
        match head {
            None if left == 0 && self.passed > 0 => Verdict::Close,
            None => Verdict::Hold,
            Some(Item::End(_)) => Verdict::Pass,
            Some(Item::Data(_)) if left == 0 => Verdict::Close,
            Some(Item::Data(chunk)) => {
                let size = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.bytes.len());
                self.passed += size as u64;
                if size < chunk.bytes.len() { Verdict::Part(size) } else { Verdict::Pass }
            }
        }
    }

    /// What went through still counts.
    fn update(&mut self, attributes: &Attributes) {
        if let Attributes::LimitData(new) = attributes {
            self.attributes = *new;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::data;
    use super::*;

    #[test]
    fn the_connection_is_closed_behind_the_last_byte() {
        let now = Instant::now();
        let mut cut = Cut::new(LimitData { bytes: 5 });
        assert_eq!(cut.decide(None, now), Verdict::Hold);
        assert_eq!(cut.decide(Some(&mut data(b"abc", now)), now), Verdict::Pass);
        assert_eq!(cut.decide(Some(&mut data(b"defg", now)), now), Verdict::Part(2));
        assert_eq!(cut.decide(Some(&mut data(b"fg", now)), now), Verdict::Close);
        assert_eq!(cut.decide(None, now), Verdict::Close);
    }

    #[test]
    fn a_limit_of_nothing_closes_at_the_first_byte() {
        let now = Instant::now();
        let mut cut = Cut::new(LimitData::default());
        assert_eq!(cut.decide(None, now), Verdict::Hold);
        assert_eq!(cut.decide(Some(&mut data(b"a", now)), now), Verdict::Close);
    }
}
