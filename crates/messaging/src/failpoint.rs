//! Places where a test can kill the process, to prove that no moment is a bad one.
//!
//! `FAILPOINT=name[@scope][:k]` names the point, optionally the consumer group (or verb) it is in, and which
//! passage of it kills (the first unless said). `FAILPOINT_FIRED` names a file that is created just before;
//! while it exists nothing is killed, so that a supervisor's restart goes on. Unset, a point costs one load
//! of an atomic.

use std::fs::OpenOptions;
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
    fn is_at(&self, name: &str, scope: &str) -> bool {
        self.name == name
            && self.scope.as_deref().is_none_or(|wanted| wanted == scope)
            && self.passed.fetch_add(1, Ordering::Relaxed) + 1 == self.passage
    }
}

/// Kills this process as `kill -9` would if the environment arms this point.
pub fn hit(name: &str, scope: &str) {
    let Some(failpoint) = ARMED.as_ref() else { return };
    if failpoint.is_at(name, scope) && OpenOptions::new().write(true).create_new(true).open(&failpoint.fired).is_ok() {
        // SIGKILL cannot be handled: no destructor, no flush, no goodbye to the broker.
        let _ = kill(Pid::this(), Signal::SIGKILL);
    }
}

/// Whether the environment arms the point `name`; asked where reaching it needs extra work.
pub(crate) fn armed(name: &str) -> bool {
    ARMED.as_ref().is_some_and(|failpoint| failpoint.name == name)
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
}
