//! Looks again and again whether a component that runs is still ready: a process may hang without ending.

use std::time::Duration;

use tokio::time::Instant;

use super::state::ConsumerWait;
use crate::launch::{self, Launch};

/// From one look to the next.
const INTERVAL: Duration = Duration::from_secs(2);
/// The same while it is not ready, so that its return is seen soon.
const INTERVAL_WHILE_LOST: Duration = Duration::from_secs(1);
/// An answer that takes longer is none.
const LIMIT: Duration = Duration::from_secs(2);
/// A busy machine or a long garbage collection makes one look fail, not so many in a row.
const FAILURES: u32 = 3;

/// What the looks have found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It is not ready any more; or, `again`, still not, and for another reason.
    Lost { lacking: String, again: bool },
    /// It is ready again.
    Back,
    /// Other consumers of it wait than did before, or for other reasons.
    Waits(Vec<ConsumerWait>),
}

/// The looks at one component, from its readiness to its end.
pub(super) struct Pulse {
    next: Instant,
    /// Failed looks in a row while it counts as ready.
    failures: u32,
    /// Why it is not ready.
    lost: Option<String>,
    /// What its consumers wait for.
    waiting: Vec<ConsumerWait>,
}

impl Pulse {
    pub(super) fn new() -> Self {
        Self { next: Instant::now() + INTERVAL, failures: 0, lost: None, waiting: Vec::new() }
    }

    /// Waits for the next change. May be dropped and called again at any time: a look that is cut off never was.
    pub(super) async fn change(&mut self, launch: &dyn Launch) -> Change {
        loop {
            // What is said beside a change of readiness comes at the next call.
            let waiting = launch.waiting();
            if waiting != self.waiting {
                self.waiting.clone_from(&waiting);
                return Change::Waits(waiting);
            }
            tokio::time::sleep_until(self.next).await;
            self.next = Instant::now() + if self.lost.is_some() { INTERVAL_WHILE_LOST } else { INTERVAL };
            let look = launch::look(launch, LIMIT).await;
            if let Some(change) = self.judge(look) {
                return change;
            }
        }
    }

    fn judge(&mut self, look: Result<(), String>) -> Option<Change> {
        let Err(lacking) = look else {
            self.failures = 0;
            return self.lost.take().map(|_| Change::Back);
        };
        self.failures += 1;
        let again = self.lost.is_some();
        if self.lost.as_ref() == Some(&lacking) || (!again && self.failures < FAILURES) {
            return None;
        }
        self.lost = Some(lacking.clone());
        Some(Change::Lost { lacking, again })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silent() -> Result<(), String> {
        Err("silent".into())
    }

    #[test]
    fn single_failures_change_nothing_and_three_in_a_row_do() {
        let mut pulse = Pulse::new();
        for look in [silent(), silent(), Ok(()), silent(), silent()] {
            assert_eq!(pulse.judge(look), None);
        }
        assert_eq!(pulse.judge(silent()), Some(Change::Lost { lacking: "silent".into(), again: false }));
    }

    #[test]
    fn one_answer_brings_it_back_and_only_a_new_reason_is_told_meanwhile() {
        let mut pulse = Pulse::new();
        for _ in 0..FAILURES {
            pulse.judge(silent());
        }
        assert_eq!(pulse.judge(silent()), None);
        let other = pulse.judge(Err("503".into()));
        assert_eq!(other, Some(Change::Lost { lacking: "503".into(), again: true }));
        assert_eq!(pulse.judge(Ok(())), Some(Change::Back));
        assert_eq!(pulse.judge(Ok(())), None);
        assert_eq!(pulse.judge(silent()), None, "after its return it has all its chances again");
    }
}
