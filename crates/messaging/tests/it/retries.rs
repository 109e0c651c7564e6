//! A wait for a dependency is one wait, whichever process does the waiting.

use std::sync::atomic::Ordering;

use messaging::{ConsumerHealth, Wait, WaitKind};

use crate::harness::{COMMANDS, Harness, Member};

/// The member's wait once so many attempts have failed.
async fn wait_after(member: &mut Member, attempts: u32) -> Wait {
    let tried = |health: &ConsumerHealth| matches!(health, ConsumerHealth::Waiting(wait) if wait.attempts >= attempts);
    match member.handle.health.wait_for(tried).await.expect("the consumer lives").clone() {
        ConsumerHealth::Waiting(wait) => wait,
        other => panic!("it waited, and now: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_goes_on_in_the_next_member_with_its_attempts_and_its_beginning() {
    let harness = Harness::with_commands_on(1).await;
    harness.script.down.store(true, Ordering::Relaxed);
    harness.send(COMMANDS, &[("a", "one")]).await;
    let mut first = harness.join();
    let before = wait_after(&mut first, 4).await;
    assert_eq!((before.kind, before.cause.as_str()), (WaitKind::Dependency, "the database is down"));
    first.stop().await;
    assert_eq!(harness.committed(COMMANDS).await, 0);

    let mut second = harness.join();
    let after = wait_after(&mut second, 1).await;
    assert!(after.attempts > before.attempts, "{after:?} goes on after {before:?}");
    assert_eq!(after.since.timestamp_millis(), before.since.timestamp_millis());
    harness.script.down.store(false, Ordering::Relaxed);
    harness.handled(1).await;
    let consuming = |health: &ConsumerHealth| matches!(health, ConsumerHealth::Consuming { .. });
    second.handle.health.wait_for(consuming).await.expect("the consumer lives");
    second.stop().await;
    assert_eq!(harness.committed(COMMANDS).await, 1);

    // The next wait is another one.
    harness.script.down.store(true, Ordering::Relaxed);
    harness.send(COMMANDS, &[("a", "two")]).await;
    let mut third = harness.join();
    let anew = wait_after(&mut third, 1).await;
    assert!(anew.since > after.since, "{anew:?} is no part of {after:?}");
    harness.script.down.store(false, Ordering::Relaxed);
    harness.handled(2).await;
    third.stop().await;
    assert!(harness.letters().await.is_empty());
}

/// Whoever loses its partitions while it waits has not died of what it had in hand.
#[tokio::test(flavor = "multi_thread")]
async fn however_often_a_wait_changes_hands_nothing_is_taken_to_end_processes() {
    let harness = Harness::with_commands_on(1).await;
    harness.script.down.store(true, Ordering::Relaxed);
    harness.send(COMMANDS, &[("a", "one"), ("a", "two")]).await;
    let mut attempts = 0;
    for _ in 0..7 {
        let mut member = harness.join();
        attempts = wait_after(&mut member, attempts + 1).await.attempts;
        member.stop().await;
    }
    harness.script.down.store(false, Ordering::Relaxed);
    let last = harness.join();
    harness.handled(2).await;
    last.stop().await;
    assert_eq!(harness.script.values().await, ["one", "two"]);
    assert!(harness.letters().await.is_empty());
}
