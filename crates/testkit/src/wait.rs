//! Waiting for a condition: the one place where a test sleeps.

use std::time::{Duration, Instant};

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(50);

/// Waits until `condition` holds.
///
/// # Panics
/// When `timeout` has passed; the message names `what` was waited for.
pub async fn wait_until(what: &str, timeout: Duration, mut condition: impl AsyncFnMut() -> bool) {
    let met = wait_for(timeout, async || condition().await.then_some(())).await;
    assert!(met.is_some(), "waited {timeout:?} in vain for: {what}");
}

/// Asks `probe` again and again until it gives a value, or `timeout` has passed (then `None`).
pub async fn wait_for<T>(timeout: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = probe().await {
            return Some(value);
        }
        if start.elapsed() >= timeout {
            return None;
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
