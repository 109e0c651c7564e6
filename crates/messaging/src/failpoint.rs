//! Places where a test can kill the process, to prove that no moment is a bad one.
//!
//! `FAILPOINT=name[@scope][:k]` names the point, optionally the consumer group (or verb) it is in, and which
//! passage of it kills (the first unless said). `FAILPOINT_FIRED` names a file that is created just before;
//! while it exists nothing is killed, so that a supervisor's restart goes on. Unset, a point costs one load
//! of an atomic.
//!
//! | point | is passed |
//! |---|---|
//! | `before-commit` | before each transaction of a batch |
//! | `in-transaction` | in a participant's open transaction: everything is written, nothing committed |
//! | `after-commit` | when a batch is committed and nothing of it sent |
//! | `after-acks:k` | when the first k messages of a batch that has more are acknowledged |
//! | `before-offsets` | when everything is acknowledged and the offsets are not committed |
//! | `timer-before-commit` `timer-after-commit` `timer-after-acks:k` `timer-before-settle` | in the same places of a round of timers, which settles its rows where a batch commits its offsets |
//! | `verb-before-commit` `verb-after-commit` | around the transaction of an operator's verb, which is the scope |
//! | `replay-before-produce` `replay-after-produce` | around the sending of claimed dead letters, which are marked as sent after it |
//! | `campaign-wave` | when a wave of a campaign is claimed and nothing of it sent |

use std::fs::OpenOptions;
use std::path::Path;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

struct Failpoint {
    name: String,
    scope: Option<String>,
    passage: u64,
    fired: String,
    passed: AtomicU64,
}

static ARMED: LazyLock<Option<Failpoint>> = LazyLock::new(|| {
    let (spec, fired) = (std::env::var("FAILPOINT").ok()?, std::env::var("FAILPOINT_FIRED").ok()?);
    let failpoint = parse(&spec, fired)?;
    tracing::warn!(failpoint = spec, "a failpoint is armed: this process will kill itself there");
    Some(failpoint)
});

fn parse(spec: &str, fired: String) -> Option<Failpoint> {
    let (place, passage) = match spec.split_once(':') {
        Some((place, passage)) => (place, passage.parse().ok()?),
        None => (spec, 1),
    };
    let (name, scope) = match place.split_once('@') {
        Some((name, scope)) => (name, Some(scope.to_owned())),
        None => (place, None),
    };
    Some(Failpoint { name: name.to_owned(), scope, passage, fired, passed: AtomicU64::new(0) })
}

impl Failpoint {
    fn is_named(&self, name: &str, scope: &str) -> bool {
        self.name == name && self.scope.as_deref().is_none_or(|wanted| wanted == scope)
    }

    fn is_at(&self, name: &str, scope: &str) -> bool {
        self.is_named(name, scope) && self.passed.fetch_add(1, Ordering::Relaxed) + 1 == self.passage
    }

    fn is_after(&self, name: &str, scope: &str, done: u64, of: u64) -> bool {
        self.is_named(name, scope) && done == self.passage && of > done
    }

    fn fire(&self) {
        if OpenOptions::new().write(true).create_new(true).open(&self.fired).is_ok() {
            // SIGKILL cannot be handled: no destructor, no flush, no goodbye to the broker.
            let _ = kill(Pid::this(), Signal::SIGKILL);
        }
    }
}

/// Kills this process as `kill -9` would if the environment arms this point.
pub fn hit(name: &str, scope: &str) {
    if let Some(failpoint) = ARMED.as_ref().filter(|failpoint| failpoint.is_at(name, scope)) {
        failpoint.fire();
    }
}

/// [`hit`] at a point within a batch: `:k` is not a passage here but how many of more than k are `done`.
pub(crate) fn hit_after(name: &str, scope: &str, done: usize, of: usize) {
    if let Some(failpoint) = ARMED.as_ref().filter(|point| point.is_after(name, scope, done as u64, of as u64)) {
        failpoint.fire();
    }
}

/// Whether the point `name` is armed and has not killed yet; asked where reaching it needs extra work.
pub(crate) fn armed(name: &str) -> bool {
    ARMED.as_ref().is_some_and(|failpoint| failpoint.name == name && !Path::new(&failpoint.fired).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failpoint_fires_at_its_name_scope_and_passage_only() {
        let point = parse("after-commit@payment-svc:2", "/nowhere".into()).expect("well formed");
        assert!(!point.is_at("before-commit", "payment-svc"));
        assert!(!point.is_at("after-commit", "orchestrator"));
        assert!(!point.is_at("after-commit", "payment-svc"));
        assert!(point.is_at("after-commit", "payment-svc"));
        assert!(!point.is_at("after-commit", "payment-svc"));
    }

    #[test]
    fn a_failpoint_within_a_batch_fires_when_so_many_are_done_and_some_are_not() {
        let point = parse("after-acks:2", "/nowhere".into()).expect("well formed");
        let after = |done, of| point.is_after("after-acks", "payment-svc", done, of);
        assert!(!after(1, 3) && !after(2, 2) && !after(3, 4));
        assert!(after(2, 3));
    }
}
