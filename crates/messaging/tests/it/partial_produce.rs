//! Rule "Partial produce": while one message of a batch is unacknowledged, nothing of the batch counts as done, its
//! partitions stop, and the whole batch is produced again.

use messaging::{ConsumerHealth, Record};
use rand::Rng;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use testkit::wait_until;

use crate::harness::{ANSWERS, COMMANDS, Harness, LIMIT};

/// Sets the size of a request that the answers' topic takes.
async fn answers_take(harness: &Harness, bytes: usize) {
    let kafka = harness.env.kafka();
    let admin: AdminClient<DefaultClientContext> =
        rdkafka::ClientConfig::new().set("bootstrap.servers", &kafka.bootstrap_servers).create().expect("a client");
    let (topic, bytes) = (kafka.topic(ANSWERS), bytes.to_string());
    let change = AlterConfig::new(ResourceSpecifier::Topic(&topic)).set("max.message.bytes", &bytes);
    let results = admin.alter_configs([&change], &AdminOptions::new()).await.expect("an answer");
    assert!(results.iter().all(Result::is_ok), "{results:?}");
}

fn copies<'r>(answers: &'r [Record], key: &str) -> Vec<&'r Record> {
    answers.iter().filter(|answer| answer.key.as_deref() == Some(key.as_bytes())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn partial_produce_commits_no_offset_of_the_batch_and_produces_all_of_it_again() {
    let harness = Harness::with_commands_on(1).await;
    answers_take(&harness, 3_000).await;
    let mut noise = vec![0; 8_000];
    testkit::rng().fill_bytes(&mut noise);
    let large: String = noise.iter().map(|byte| format!("{byte:02x}")).collect();
    let keys = ["a", "b", "c", "d", "e", "large"];
    let batch = keys.map(|key| (key, if key == "large" { large.as_str() } else { key }));
    harness.send(COMMANDS, &batch).await;
    let mut member = harness.join();
    harness.handled(6).await;

    // On the other partition the broker takes everything, and so it has it more than once.
    let mut answers = Vec::new();
    wait_until("what fits to be produced again and again", LIMIT, async || {
        answers = harness.env.read_topic(ANSWERS).await;
        keys.iter().any(|key| copies(&answers, key).len() >= 3)
    })
    .await;
    assert!(copies(&answers, "large").is_empty(), "the broker refuses it");
    // What comes meanwhile waits its turn.
    harness.send(COMMANDS, &keys.map(|key| (key, "later"))).await;
    let waits = |health: &ConsumerHealth| matches!(health, ConsumerHealth::Waiting { .. });
    member.handle.health.wait_for(waits).await.expect("the consumer lives");
    assert_eq!(harness.script.values().await.len(), 6);
    assert_eq!(harness.committed(COMMANDS).await, 0);

    answers_take(&harness, 1_000_000).await;
    harness.handled(12).await;
    member.stop().await;
    assert_eq!(harness.committed(COMMANDS).await, 12);
    assert_eq!(harness.script.values().await.len(), 12, "handled once: only the produce is repeated");
    let answers = harness.env.read_topic(ANSWERS).await;
    for key in keys {
        let copies = copies(&answers, key);
        let (last, first) = copies.split_last().expect("an answer");
        assert_eq!(last.json::<String>().expect("a string"), "later", "{key}: in order");
        assert!(first.iter().all(|copy| copy.payload == first[0].payload && copy.headers == first[0].headers));
    }
}
