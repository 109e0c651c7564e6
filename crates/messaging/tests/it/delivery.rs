use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use messaging::ConsumerHealth;
use testkit::wait_until;

use crate::harness::{ANSWERS, COMMANDS, Harness, LIMIT, STARTS, Valve};

#[tokio::test(flavor = "multi_thread")]
async fn every_message_is_answered_and_then_its_offset_is_committed() {
    let harness = Harness::new().await;
    let keys: Vec<String> = (0..50).map(|_| harness.key()).collect();
    let messages: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), key.as_str())).collect();
    harness.send(COMMANDS, &messages).await;

    let member = harness.join();
    harness.handled(50).await;
    member.stop().await;

    let mut answered: Vec<String> =
        harness.env.read_topic(ANSWERS).await.iter().map(|record| record.json().expect("a string")).collect();
    answered.sort();
    let mut expected = keys.clone();
    expected.sort();
    assert_eq!(answered, expected);
    assert_eq!(harness.committed(COMMANDS).await, 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_one_key_are_handled_in_their_order() {
    let harness = Harness::new().await;
    let values: Vec<String> = (0..200).map(|n| format!("{n:03}")).collect();
    let messages: Vec<(&str, &str)> =
        values.iter().enumerate().map(|(n, value)| (["a", "b", "c"][n % 3], value.as_str())).collect();
    let member = harness.join();
    harness.send(COMMANDS, &messages).await;
    harness.handled(200).await;
    member.stop().await;

    let mut by_key: HashMap<String, Vec<String>> = HashMap::new();
    for (key, value) in harness.script.handled.lock().await.iter().cloned() {
        by_key.entry(key).or_default().push(value);
    }
    for (key, values) in by_key {
        assert!(values.is_sorted(), "{key}: {values:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dependency_that_is_down_holds_the_batch_and_buries_nothing() {
    let harness = Harness::new().await;
    harness.script.down.store(true, Ordering::Relaxed);
    let mut member = harness.join();
    harness.send(COMMANDS, &[("a", "one"), ("b", "two")]).await;
    let waiting = |health: &ConsumerHealth| matches!(health, ConsumerHealth::Waiting { .. });
    let waits = member.handle.health.wait_for(waiting).await.expect("the consumer lives").clone();
    let ConsumerHealth::Waiting(wait) = waits else { panic!("it waited, and now: {waits:?}") };
    assert_eq!(wait.cause, "the database is down");
    assert_eq!(harness.committed(COMMANDS).await, 0);

    harness.script.down.store(false, Ordering::Relaxed);
    harness.handled(2).await;
    let consuming = |health: &ConsumerHealth| matches!(health, ConsumerHealth::Consuming { .. });
    member.handle.health.wait_for(consuming).await.expect("the consumer lives");
    member.stop().await;
    assert_eq!(harness.committed(COMMANDS).await, 2);
    assert!(harness.letters().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_stops_while_it_waits_leaves_its_batch_to_the_next() {
    let harness = Harness::new().await;
    harness.script.down.store(true, Ordering::Relaxed);
    let mut member = harness.join();
    harness.send(COMMANDS, &[("a", "one")]).await;
    let waiting = |health: &ConsumerHealth| matches!(health, ConsumerHealth::Waiting { .. });
    member.handle.health.wait_for(waiting).await.expect("the consumer lives");
    member.stop().await;
    assert_eq!(harness.committed(COMMANDS).await, 0);

    harness.script.down.store(false, Ordering::Relaxed);
    let next = harness.join();
    harness.handled(1).await;
    next.stop().await;
    assert_eq!(harness.script.values().await, ["one"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_come_and_go_in_mid_load_lose_nothing() {
    let harness = Harness::new().await;
    harness.script.slow.store(5, Ordering::Relaxed);
    let first = harness.join();
    let values: Vec<String> = (0..2_000).map(|n| format!("{n:04}")).collect();
    let messages: Vec<(&str, &str)> = values.iter().map(|value| (value.as_str(), value.as_str())).collect();
    let (early, late) = messages.split_at(1_000);
    harness.send(COMMANDS, early).await;
    let second = harness.join();
    harness.send(COMMANDS, late).await;
    harness.handled(500).await;
    first.stop().await;
    wait_until("every message is handled by someone", LIMIT, async || {
        let mut seen = harness.script.values().await;
        seen.sort();
        seen.dedup();
        seen.len() == values.len()
    })
    .await;
    second.stop().await;
    assert_eq!(harness.committed(COMMANDS).await, 2_000);
}

/// Rule "Backlog is not lateness".
#[tokio::test(flavor = "multi_thread")]
async fn starts_pause_while_the_gate_is_closed_and_answers_go_on() {
    let harness = Harness::new().await;
    let valve = Arc::new(Valve::default());
    valve.0.store(true, Ordering::Relaxed);
    let gate = valve.clone();
    let member = harness.join_with(|consumer| consumer.gate(gate));
    // The gate is asked when partitions arrive, so by the first handled message it has paused the starts.
    harness.send(COMMANDS, &[("a", "warm")]).await;
    harness.handled(1).await;
    harness.send(STARTS, &[("a", "start")]).await;
    harness.send(COMMANDS, &[("a", "answer 1"), ("b", "answer 2")]).await;
    harness.handled(3).await;
    assert_eq!(harness.script.values().await.iter().filter(|value| *value == "start").count(), 0);

    valve.0.store(false, Ordering::Relaxed);
    harness.handled(4).await;
    member.stop().await;
    assert_eq!(harness.script.values().await.last().map(String::as_str), Some("start"));
}

/// A batch that takes longer than the loop's patience makes it pause its partitions, and librdkafka keeps a pause
/// from one assignment to the next.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_were_paused_for_a_slow_batch_are_read_again_after_a_rebalance() {
    let harness = Harness::new().await;
    harness.script.slow.store(800, Ordering::Relaxed);
    let first = harness.join();
    harness.send(COMMANDS, &[("a", "a1"), ("b", "b1"), ("c", "c1")]).await;
    harness.handled(1).await;
    harness.send(COMMANDS, &[("a", "a2"), ("b", "b2"), ("c", "c2")]).await;
    let second = harness.join();
    harness.handled(6).await;
    // Whoever owns which partition by now, all are still read.
    let keys: Vec<String> = (0..20).map(|_| harness.key()).collect();
    let messages: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), key.as_str())).collect();
    harness.send(COMMANDS, &messages).await;
    wait_until("both members read on", LIMIT, async || {
        let values = harness.script.values().await;
        keys.iter().all(|key| values.contains(key))
    })
    .await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_longer_than_the_drain_timeout_gives_its_partitions_up_and_gets_others_to_read() {
    let harness = Harness::new().await;
    harness.script.down.store(true, Ordering::Relaxed);
    let mut first = harness.join();
    harness.send(COMMANDS, &[("a", "a1"), ("b", "b1"), ("c", "c1"), ("d", "d1")]).await;
    let waiting = |health: &ConsumerHealth| matches!(health, ConsumerHealth::Waiting { .. });
    first.handle.health.wait_for(waiting).await.expect("the consumer lives");
    let mut second = harness.join();
    let consuming = |health: &ConsumerHealth| !matches!(health, ConsumerHealth::Joining);
    second.handle.health.wait_for(consuming).await.expect("the consumer lives");
    harness.script.down.store(false, Ordering::Relaxed);
    harness.handled(4).await;
    let ready = |health: &ConsumerHealth| matches!(health, ConsumerHealth::Consuming { .. });
    first.handle.health.wait_for(ready).await.expect("the consumer lives");
    second.handle.health.wait_for(ready).await.expect("the consumer lives");
    harness.send(COMMANDS, &[("a", "a2"), ("b", "b2"), ("c", "c2"), ("d", "d2")]).await;
    wait_until("all partitions are read on", LIMIT, async || {
        let values = harness.script.values().await;
        ["a2", "b2", "c2", "d2"].iter().all(|value| values.iter().any(|handled| handled == value))
    })
    .await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn starts_that_were_paused_before_a_rebalance_go_on_after_the_gate_opens() {
    let harness = Harness::new().await;
    let valve = Arc::new(Valve::default());
    valve.0.store(true, Ordering::Relaxed);
    let (gate, other_gate) = (valve.clone(), valve.clone());
    let first = harness.join_with(|consumer| consumer.gate(gate));
    harness.send(COMMANDS, &[("a", "warm")]).await;
    harness.handled(1).await;
    let mut second = harness.join_with(|consumer| consumer.gate(other_gate));
    let consuming = |health: &ConsumerHealth| matches!(health, ConsumerHealth::Consuming { .. });
    second.handle.health.wait_for(consuming).await.expect("the consumer lives");
    valve.0.store(false, Ordering::Relaxed);
    let keys: Vec<String> = (0..10).map(|_| harness.key()).collect();
    let starts: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), key.as_str())).collect();
    harness.send(STARTS, &starts).await;
    harness.handled(11).await;
    first.stop().await;
    second.stop().await;
}
