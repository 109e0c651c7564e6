//! The markers of transactions take offsets that no consumer is given. Whoever waits for the end of a topic must not wait
//! for them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use messaging::{CancellationToken, admin, follow};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use testkit::wait_until;

use crate::harness::{COMMANDS, Harness, LIMIT, SharedTimers, message};
use crate::timers::OneShot;

/// A participant of somebody who likes transactions.
struct Transactional(BaseProducer);

impl Transactional {
    fn new(harness: &Harness) -> Self {
        let kafka = harness.env.kafka();
        let producer: BaseProducer = rdkafka::ClientConfig::new()
            .set("bootstrap.servers", &kafka.bootstrap_servers)
            .set("transactional.id", kafka.topic("transactional"))
            .create()
            .expect("a producer");
        producer.init_transactions(LIMIT).expect("the coordinator answers");
        Transactional(producer)
    }

    /// Sends `values` in a transaction, and gives that an end.
    fn send(&self, harness: &Harness, values: &[&str], commit: bool) {
        self.0.begin_transaction().expect("a transaction");
        let topic = harness.env.kafka().topic(COMMANDS);
        for value in values {
            let message = message(COMMANDS, value, value);
            let headers = message.attributes().into_iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
                headers.insert(Header { key, value: Some(value.as_ref()) })
            });
            let record = BaseRecord::to(&topic).key(*value).payload(&message.payload).headers(headers);
            self.0.send(record).map_err(|(error, _)| error).expect("there is room");
        }
        // What is not on the topic before an abort never gets there.
        self.0.flush(LIMIT).expect("the broker takes all");
        let ended = if commit { self.0.commit_transaction(LIMIT) } else { self.0.abort_transaction(LIMIT) };
        ended.expect("the transaction ends");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn timers_fire_though_the_last_offsets_of_a_reply_topic_are_given_to_nobody() {
    let harness = Harness::with_commands_on(1).await;
    let stranger = Transactional::new(&harness);
    tokio::task::block_in_place(|| {
        stranger.send(&harness, &["one", "two", "three"], true);
        stranger.send(&harness, &["never"], false);
    });
    let timers = OneShot::of(&harness);
    let shared: SharedTimers = timers.clone();
    let member = harness.join_with(|consumer| consumer.timers(shared));
    wait_until("the timer is settled", LIMIT, async || timers.settled.load(Ordering::Relaxed) == 1).await;
    assert_eq!(*timers.fired_after.lock().await, [3]);
    // Three messages, one that was aborted, two markers.
    wait_until("the group is at the end", LIMIT, async || harness.committed(COMMANDS).await == 6).await;

    // The same to a consumer that has read before: nothing but markers comes.
    tokio::task::block_in_place(|| stranger.send(&harness, &["never"], false));
    timers.settled.store(0, Ordering::Relaxed);
    wait_until("the timer is settled again", LIMIT, async || timers.settled.load(Ordering::Relaxed) == 1).await;
    wait_until("the group is at the end", LIMIT, async || harness.committed(COMMANDS).await == 8).await;
    member.stop().await;
    assert_eq!(harness.script.values().await, ["one", "two", "three"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_to_the_end_ends_behind_transactions() {
    let harness = Harness::with_commands_on(2).await;
    let stranger = Transactional::new(&harness);
    tokio::task::block_in_place(|| {
        stranger.send(&harness, &["one", "two", "three", "four"], true);
        stranger.send(&harness, &["never", "ever", "at", "all"], false);
    });
    let kafka = harness.env.kafka();
    let (broker, topic) = (kafka.bootstrap_servers.as_str(), kafka.topic(COMMANDS));
    let read = tokio::time::timeout(Duration::from_secs(20), admin::read_topic(broker, &topic)).await;
    assert_eq!(read.expect("it ends").expect("it is read").len(), 4);

    let (stop, seen) = (CancellationToken::new(), std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0)));
    // A follower that nobody stops keeps the runtime of a failed test for ever.
    let _stopped = stop.clone().drop_guard();
    let counted = seen.clone();
    let mut following = follow(&kafka, COMMANDS, stop.clone(), move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
    })
    .expect("a follower");
    let caught_up = following.caught_up.wait_for(|done| *done);
    // What it gives borrows the value: kept, it would stop the follower.
    let caught_up = tokio::time::timeout(Duration::from_secs(20), caught_up).await.is_ok();
    assert!(caught_up, "it says that it knows all");
    assert_eq!(seen.load(Ordering::Relaxed), 4);
    stop.cancel();
    following.stopped.await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_retention_removed_is_waited_for_by_nobody() {
    let harness = Harness::with_commands_on(1).await;
    harness.send(COMMANDS, &[("a", "one"), ("a", "two")]).await;
    let kafka = harness.env.kafka();
    let (broker, topic) = (kafka.bootstrap_servers.as_str(), kafka.topic(COMMANDS));
    admin::delete_records(broker, &topic, 0, 2).await.expect("they are removed");
    assert!(admin::read_topic(broker, &topic).await.expect("it is read").is_empty());

    let timers = OneShot::of(&harness);
    let shared: SharedTimers = timers.clone();
    let member = harness.join_with(|consumer| consumer.timers(shared));
    wait_until("the timer is settled", LIMIT, async || timers.settled.load(Ordering::Relaxed) == 1).await;
    member.stop().await;
    assert_eq!(*timers.fired_after.lock().await, [0]);
}
