//! `latency`: everything arrives later.

use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};

use super::{Attributes, Item, Stage, Verdict, after, milliseconds, until};

/// The delay is `latency` plus or minus `jitter`, drawn for each chunk that was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Latency {
    /// Milliseconds.
    #[serde(default)]
    latency: i64,
    /// Milliseconds.
    #[serde(default)]
    jitter: i64,
}

pub(super) struct Delay {
    attributes: Latency,
    rng: StdRng,
    room: usize,
    /// What was drawn for the first item that waits.
    drawn: Option<Duration>,
}

impl Delay {
    pub(super) fn new(attributes: Latency, rng: StdRng, room: usize) -> Self {
        Self { attributes, rng, room, drawn: None }
    }

    fn draw(&mut self) -> Duration {
        let Latency { latency, jitter } = self.attributes;
        let off = if jitter > 0 { self.rng.random_range(-jitter..=jitter) } else { 0 };
        milliseconds(latency.saturating_add(off))
    }
}

impl Stage for Delay {
    fn decide(&mut self, head: Option<&mut Item>, now: Instant) -> Verdict {
        match head {
            None => Verdict::Hold,
            // The end follows the last byte at once, as in Toxiproxy; slow_close holds it back.
            Some(Item::End(_)) => Verdict::Pass,
            Some(Item::Data(chunk)) => {
                let delay = match self.drawn {
                    Some(drawn) => drawn,
                    None => {
                        let drawn = self.draw();
                        self.drawn = Some(drawn);
                        drawn
                    }
                };
                match after(chunk.at, delay) {
                    Some(due) if due <= now => {
                        chunk.at = due;
                        self.drawn = None;
                        Verdict::Pass
                    }
                    due => until(due),
                }
            }
        }
    }

    fn update(&mut self, attributes: &Attributes) {
        if let Attributes::Latency(new) = attributes {
            self.attributes = *new;
            self.drawn = None;
        }
    }

    /// Whatever is on its way is held here.
    fn room(&self) -> usize {
        self.room
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{data, ms, rng};
    use super::super::{End, ROOM};
    use super::*;

    #[test]
    fn a_chunk_leaves_when_its_latency_is_over_and_two_latencies_add_up() {
        let start = Instant::now();
        let mut item = data(b"x", start);
        for step in 1..=2 {
            let mut delay = Delay::new(Latency { latency: 100, jitter: 0 }, rng(), ROOM);
            let due = start + ms(100 * step);
            assert_eq!(delay.decide(Some(&mut item), due - ms(1)), Verdict::Wait(due));
            assert_eq!(delay.decide(Some(&mut item), due), Verdict::Pass);
        }
        let mut delay = Delay::new(Latency { latency: 100, jitter: 0 }, rng(), ROOM);
        assert_eq!(delay.decide(Some(&mut Item::End(End::Finish)), start), Verdict::Pass);
    }

    #[test]
    fn jitter_stays_within_its_bounds_and_is_the_same_for_the_same_seed() {
        let delays = || {
            let mut delay = Delay::new(Latency { latency: 100, jitter: 30 }, rng(), ROOM);
            (0..200).map(|_| delay.draw()).collect::<Vec<_>>()
        };
        assert!(delays().iter().all(|delay| (ms(70)..=ms(130)).contains(delay)));
        assert!(delays().iter().any(|delay| *delay != ms(100)));
        assert_eq!(delays(), delays());
    }

    #[test]
    fn a_shorter_latency_lets_go_what_waits() {
        let start = Instant::now();
        let mut delay = Delay::new(Latency { latency: i64::MAX, jitter: i64::MAX }, rng(), ROOM);
        let mut item = data(b"x", start);
        delay.decide(Some(&mut item), start);
        delay.update(&Attributes::Latency(Latency { latency: -5, jitter: 0 }));
        assert_eq!(delay.decide(Some(&mut item), start), Verdict::Pass);
    }
}
