use std::time::Duration;

use rand::RngExt;

/// Exponential backoff with full jitter (each wait is uniform between nothing and the current ceiling), which
/// spreads replicas that fail together better than a fixed or half-jittered wait.
pub(crate) struct Backoff {
    ceiling: Duration,
}

const FIRST: Duration = Duration::from_millis(100);
const CAP: Duration = Duration::from_secs(5);

impl Backoff {
    pub(crate) fn new() -> Self {
        Backoff::after(0)
    }

    /// As if so many waits were over.
    pub(crate) fn after(waits: u32) -> Self {
        Backoff { ceiling: FIRST.saturating_mul(2_u32.saturating_pow(waits)).min(CAP) }
    }

    /// The next wait; the ceiling doubles up to 5 s. Never below 10 ms, so that no loop spins.
    pub(crate) fn next(&mut self) -> Duration {
        let ceiling = self.ceiling;
        self.ceiling = (self.ceiling * 2).min(CAP);
        let wait = rand::rng().random_range(0.0..=ceiling.as_secs_f64());
        Duration::from_secs_f64(wait).max(Duration::from_millis(10))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The longest of many waits after so many others.
    fn longest(waits: u32) -> Duration {
        (0..500).map(|_| Backoff::after(waits).next()).max().unwrap_or_default()
    }

    #[test]
    fn waits_grow_up_to_the_cap_and_no_two_are_alike() {
        for (waits, ceiling) in [(0, 100), (1, 200), (3, 800), (5, 3_200), (6, 5_000), (u32::MAX, 5_000)] {
            let (longest, ceiling) = (longest(waits), Duration::from_millis(ceiling));
            assert!(longest <= ceiling && longest > ceiling / 2, "{waits}: {longest:?}");
        }
        let mut backoff = Backoff::new();
        let waits: Vec<Duration> = (0..20).map(|_| backoff.next()).collect();
        assert!(waits.iter().all(|wait| (Duration::from_millis(10)..=CAP).contains(wait)), "{waits:?}");
        assert!(waits[10..].windows(2).any(|pair| pair[0] != pair[1]), "{waits:?}");
    }
}
