//! `slicer`: what was one packet arrives as many.

use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};

use super::{Attributes, CATCH_UP, Item, Stage, Verdict};

/// Slices of `average_size` plus or minus `size_variation` bytes; with an average of 0 nothing is sliced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Slicer {
    /// Bytes.
    #[serde(default)]
    average_size: i64,
    /// Bytes.
    #[serde(default)]
    size_variation: i64,
    /// Microseconds between two slices.
    #[serde(default)]
    delay: i64,
}

pub(super) struct Slice {
    attributes: Slicer,
    rng: StdRng,
    /// When the next slice may leave.
    next: Option<Instant>,
}

impl Slice {
    pub(super) fn new(attributes: Slicer, rng: StdRng) -> Self {
        Self { attributes, rng, next: None }
    }

    fn size(&mut self) -> usize {
        let Slicer { average_size, size_variation, .. } = self.attributes;
        let off = if size_variation > 0 { self.rng.random_range(-size_variation..=size_variation) } else { 0 };
        usize::try_from(average_size.saturating_add(off).max(1)).unwrap_or(usize::MAX)
    }
}

impl Stage for Slice {
    fn decide(&mut self, head: Option<&mut Item>, now: Instant) -> Verdict {
        let length = match head {
            None => return Verdict::Hold,
            Some(Item::End(_)) => return Verdict::Pass,
            Some(Item::Data(chunk)) => chunk.bytes.len(),
        };
        if self.attributes.average_size <= 0 {
            return Verdict::Pass;
        }
        if let Some(next) = self.next.filter(|next| now < *next) {
            return Verdict::Wait(next);
        }
        // Timers know milliseconds: slices that are due while one runs leave together, one by one.
        let last = self.next.filter(|next| now.duration_since(*next) < CATCH_UP).unwrap_or(now);
        let delay = Duration::from_micros(u64::try_from(self.attributes.delay).unwrap_or(0));
        self.next = last.checked_add(delay);
        let size = self.size();
        if size < length { Verdict::Part(size) } else { Verdict::Pass }
    }

    fn update(&mut self, attributes: &Attributes) {
        if let Attributes::Slicer(new) = attributes {
            self.attributes = *new;
            self.next = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{data, rng};
    use super::*;

    #[test]
    fn slices_have_about_the_average_size_and_keep_their_distance() {
        let start = Instant::now();
        let mut slice = Slice::new(Slicer { average_size: 100, size_variation: 20, delay: 500 }, rng());
        let mut item = data(&[7; 1000], start);
        let Verdict::Part(size) = slice.decide(Some(&mut item), start) else { panic!("not sliced") };
        assert!((80..=120).contains(&size), "{size}");
        let next = start + Duration::from_micros(500);
        assert_eq!(slice.decide(Some(&mut item), start), Verdict::Wait(next));
        assert!(matches!(slice.decide(Some(&mut item), next), Verdict::Part(_)));
        assert_eq!(slice.decide(Some(&mut data(b"x", start)), start + CATCH_UP), Verdict::Pass);
    }

    #[test]
    fn sizes_that_make_no_sense_do_no_harm() {
        let start = Instant::now();
        let mut whole = Slice::new(Slicer::default(), rng());
        assert_eq!(whole.decide(Some(&mut data(&[7; 1000], start)), start), Verdict::Pass);
        let mut wild = Slice::new(Slicer { average_size: 1, size_variation: i64::MAX, delay: -1 }, rng());
        assert!((0..100).all(|_| wild.size() >= 1));
    }
}
