//! How long a component that died waits before it is started again.

use std::time::Duration;

/// A component that was ready for so long starts with the shortest delay again.
const HEALTHY_AFTER: Duration = Duration::from_secs(10);
const DELAYS_MS: [u64; 6] = [200, 1_000, 2_000, 4_000, 8_000, 15_000];

/// Delays that grow with every death in a row.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    deaths: usize,
}

impl Backoff {
    /// The delay after a death. `ready_for` is how long the component was ready before it died.
    pub(super) fn after(&mut self, ready_for: Duration) -> Duration {
        if ready_for >= HEALTHY_AFTER {
            self.deaths = 0;
        }
        let delay = DELAYS_MS[self.deaths.min(DELAYS_MS.len() - 1)];
        self.deaths += 1;
        Duration::from_millis(delay)
    }

    /// Deaths in a row.
    pub(super) fn deaths(&self) -> usize {
        self.deaths
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_try_comes_within_a_second_and_health_starts_over() {
        let mut backoff = Backoff::default();
        let short = Duration::from_secs(3);
        let delays: Vec<_> = (0..8).map(|_| backoff.after(short).as_millis()).collect();
        assert_eq!(delays, [200, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000, 15_000]);
        assert_eq!(backoff.after(Duration::from_secs(11)).as_millis(), 200);
        assert_eq!(backoff.deaths(), 1);
    }
}
