use std::time::Duration;

use rand::RngExt;

/// Exponential backoff with full jitter (each wait is uniform between nothing and the current ceiling), which
/// spreads replicas that fail together better than a fixed or half-jittered wait.
pub(crate) struct Backoff {
    ceiling: Duration,
    cap: Duration,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Backoff { ceiling: Duration::from_millis(100), cap: Duration::from_secs(5) }
    }

    /// The next wait; the ceiling doubles up to 5 s. Never below 10 ms, so that no loop spins.
    pub(crate) fn next(&mut self) -> Duration {
        let ceiling = self.ceiling;
        self.ceiling = (self.ceiling * 2).min(self.cap);
        let wait = rand::rng().random_range(0.0..=ceiling.as_secs_f64());
        Duration::from_secs_f64(wait).max(Duration::from_millis(10))
    }
}
