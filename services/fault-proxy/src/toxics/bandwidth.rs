//! `bandwidth`: a slower line.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Attributes, CATCH_UP, Chunk, Item, Stage, Verdict};

/// A line of so much; one of 0 lets nothing through and loses nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bandwidth {
    /// Kilobytes a second, of 1,000 bytes.
    #[serde(default)]
    rate: i64,
}

/// A large chunk leaves in pieces that take so long, in milliseconds.
const PIECE_MS: u64 = 100;

pub(super) struct Slow {
    attributes: Bandwidth,
    /// When the line was done with what has left.
    free: Instant,
    /// The piece on the line: its bytes, and when the last of them is through.
    piece: Option<(usize, Instant)>,
}

impl Slow {
    pub(super) fn new(attributes: Bandwidth, now: Instant) -> Self {
        Self { attributes, free: now, piece: None }
    }

    fn next_piece(&self, chunk: &Chunk, rate: u64, now: Instant) -> (usize, Instant) {
        let most = usize::try_from(rate.saturating_mul(PIECE_MS)).unwrap_or(usize::MAX);
        let size = chunk.bytes.len().min(most);
        // The line began when it was free and the bytes were there, even if the timer is late; but an old chunk that was
        // held up elsewhere gives it no right to a burst.
        let start = self.free.max(chunk.at).max(now.checked_sub(CATCH_UP).unwrap_or(now)).min(now);
        (size, start + Duration::from_nanos(size as u64 * 1_000_000 / rate))
    }
}

impl Stage for Slow {
    fn decide(&mut self, head: Option<&mut Item>, now: Instant) -> Verdict {
        let chunk = match head {
            None => return Verdict::Hold,
            Some(Item::End(_)) => return Verdict::Pass,
            Some(Item::Data(chunk)) => chunk,
        };
        let rate = u64::try_from(self.attributes.rate).unwrap_or(0);
        if rate == 0 {
            return Verdict::Hold;
        }
        let (size, through) = self.piece.unwrap_or_else(|| self.next_piece(chunk, rate, now));
        self.piece = Some((size, through));
        if now < through {
            return Verdict::Wait(through);
        }
        self.piece = None;
        self.free = through;
        if size < chunk.bytes.len() { Verdict::Part(size) } else { Verdict::Pass }
    }

    fn update(&mut self, attributes: &Attributes) {
        if let Attributes::Bandwidth(new) = attributes {
            self.attributes = *new;
            self.piece = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{data, ms};
    use super::*;

    #[test]
    fn bytes_leave_in_pieces_of_a_tenth_of_a_second() {
        let start = Instant::now();
        let mut slow = Slow::new(Bandwidth { rate: 1 }, start);
        let mut item = data(&[7; 250], start);
        assert_eq!(slow.decide(Some(&mut item), start), Verdict::Wait(start + ms(100)));
        assert_eq!(slow.decide(Some(&mut item), start + ms(105)), Verdict::Part(100));
        let mut rest = data(&[7; 150], start);
        // The timer was 5 ms late, the line was not.
        assert_eq!(slow.decide(Some(&mut rest), start + ms(105)), Verdict::Wait(start + ms(200)));
        assert_eq!(slow.decide(Some(&mut rest), start + ms(200)), Verdict::Part(100));
        let mut rest = data(&[7; 50], start);
        assert_eq!(slow.decide(Some(&mut rest), start + ms(200)), Verdict::Wait(start + ms(250)));
        assert_eq!(slow.decide(Some(&mut rest), start + ms(250)), Verdict::Pass);
    }

    #[test]
    fn a_line_that_was_idle_has_saved_up_nothing() {
        let start = Instant::now();
        let mut slow = Slow::new(Bandwidth { rate: 1 }, start);
        let later = start + ms(60_000);
        let mut old = data(&[7; 100], start);
        let Verdict::Wait(through) = slow.decide(Some(&mut old), later) else { panic!("it passed") };
        assert!(through >= later + ms(100) - CATCH_UP, "{:?}", through - later);
    }

    #[test]
    fn no_bandwidth_holds_everything_until_there_is_some() {
        let start = Instant::now();
        let mut slow = Slow::new(Bandwidth::default(), start);
        let mut item = data(&[7; 100], start);
        assert_eq!(slow.decide(Some(&mut item), start + ms(60_000)), Verdict::Hold);
        slow.update(&Attributes::Bandwidth(Bandwidth { rate: i64::MAX }));
        assert_eq!(slow.decide(Some(&mut item), start + ms(60_000)), Verdict::Pass);
    }
}
