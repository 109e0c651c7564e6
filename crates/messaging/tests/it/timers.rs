//! Rule "Backlog is not lateness": timers wait behind the answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use chrono::{DateTime, Utc};
use messaging::{Due, Fired, HandlerError, Timers, async_trait};
use testkit::wait_until;
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::harness::{ANSWERS, COMMANDS, Harness, LIMIT, Script, SharedTimers, message};

/// One timer per owned partition, due from the start until it is settled. It notes how many messages had been
/// handled when it fired.
pub struct OneShot {
    script: Arc<Script>,
    pub settled: AtomicUsize,
    pub fired_after: Mutex<Vec<usize>>,
}

impl OneShot {
    pub fn of(harness: &Harness) -> Arc<Self> {
        let script = harness.script.clone();
        Arc::new(OneShot { script, settled: AtomicUsize::new(0), fired_after: Mutex::default() })
    }
}

#[async_trait]
impl Timers for OneShot {
    async fn due(&self, partitions: &[i32]) -> Result<Due, HandlerError> {
        let due = if self.settled.load(Ordering::Relaxed) == 0 { partitions.to_vec() } else { Vec::new() };
        Ok(Due { now: Utc::now(), partitions: due })
    }

    async fn fire(&self, _: &[i32], _: DateTime<Utc>) -> Result<Fired, HandlerError> {
        self.fired_after.lock().await.push(self.script.values().await.len());
        Ok(Fired { messages: vec![message(ANSWERS, "t", "timer")], receipts: vec![Uuid::nil()], more: false })
    }

    async fn settle(&self, receipts: &[Uuid]) -> Result<(), HandlerError> {
        assert_eq!(receipts, [Uuid::nil()]);
        self.settled.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timer_fires_only_after_the_answers_that_were_waiting_are_read() {
    let harness = Harness::new().await;
    let values: Vec<String> = (0..3_000).map(|n| format!("{n}")).collect();
    let messages: Vec<(&str, &str)> = values.iter().map(|value| (value.as_str(), value.as_str())).collect();
    harness.send(COMMANDS, &messages).await;
    // Six batches or more of a second each, while the timers are due from the start.
    harness.script.slow.store(400, Ordering::Relaxed);
    let timers = OneShot::of(&harness);
    let shared: SharedTimers = timers.clone();
    let member = harness.join_with(|consumer| consumer.timers(shared));
    wait_until("the timer is settled", LIMIT, async || timers.settled.load(Ordering::Relaxed) > 0).await;
    member.stop().await;

    assert_eq!(*timers.fired_after.lock().await, [3_000]);
    let published = harness.env.read_topic(ANSWERS).await;
    assert!(published.iter().any(|record| record.key.as_deref() == Some(b"t")));
}
