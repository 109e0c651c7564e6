//! What retention has removed is no violation; what it has left is judged as ever.

use messaging::{KafkaConfig, admin};
use symphony_cli::audit::Report;
use testkit::Env;

use crate::stand::{assert_clean, execute, judged, placed, record, violations};

#[tokio::test(flavor = "multi_thread")]
async fn what_retention_removed_is_not_missed_and_what_it_left_is_not_excused() {
    let env = Env::new("retention").await;
    let cluster = env.cluster().start().await;
    let summary = placed(&cluster, 60, 8, "").await;
    assert!(summary.is_complete(), "{summary}");
    cluster.stop_all().await;
    assert_clean(&env).await;

    // Partition 0 loses all it had, partition 1 its first message.
    let kafka = env.kafka();
    let removed = remove(&kafka, "order.created", 0, None).await + remove(&kafka, "order.created", 1, Some(1)).await;
    let removed_commands = remove(&kafka, "payment.requested", 0, None).await;
    let report = judged(&env).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(counted(&report, "I2", "rows whose event retention may have removed"), removed);
    assert_eq!(counted(&report, "I5", "that retention may have removed"), removed_commands);

    // A message that is missing where nothing was removed is lost.
    execute(
        &env,
        "orchestrator",
        "CREATE TABLE moved AS SELECT id FROM saga WHERE partition = 0 LIMIT 1;
         UPDATE saga SET partition = 2 WHERE id IN (SELECT id FROM moved)",
    )
    .await;
    let report = judged(&env).await;
    assert_eq!((violations(&report, "I2").len(), violations(&report, "I5").len()), (1, 1), "{report}");
    execute(&env, "orchestrator", "UPDATE saga SET partition = 0 WHERE id IN (SELECT id FROM moved)").await;

    // A letter may outlive its original, but not come from where nothing ever was.
    letter_from(&kafka, 0).await;
    assert_clean(&env).await;
    letter_from(&kafka, removed + 1_000).await;
    let report = judged(&env).await;
    let found = violations(&report, "I6");
    assert!(found.len() == 1 && found[0].contains("where nothing is"), "{report}");
}

/// Removes the first `count` messages of a partition, or all; returns how many.
async fn remove(kafka: &KafkaConfig, topic: &str, partition: i32, count: Option<i64>) -> i64 {
    let topic = kafka.topic(topic);
    let ends = admin::offsets(&kafka.bootstrap_servers, &topic).await.expect("offsets");
    let (first, next) = ends[usize::try_from(partition).expect("a partition")];
    let until = count.map_or(next, |count| first + count);
    assert!(first < until && until <= next, "{topic} has {first} to {next} in partition {partition}");
    admin::delete_records(&kafka.bootstrap_servers, &topic, partition, until).await.expect("deleted");
    until - first
}

/// A dead letter whose original was at `offset` of partition 0.
async fn letter_from(kafka: &KafkaConfig, offset: i64) {
    let offset = offset.to_string();
    let headers: [(&str, &[u8]); 6] = [
        ("dlq-topic", b"order.created"),
        ("dlq-partition", b"0"),
        ("dlq-offset", offset.as_bytes()),
        ("dlq-consumer-group", b"orchestrator"),
        ("dlq-reason", b"test"),
        ("dlq-error", b"test"),
    ];
    let topic = kafka.topic("order.created.dlq");
    let letter = record(&topic, None, Some(b"{}"), &headers);
    admin::produce(&kafka.bootstrap_servers, &topic, &[letter]).await.expect("sent");
}

/// What was counted of `what`.
fn counted(report: &Report, invariant: &str, what: &str) -> i64 {
    let finding = report.findings.iter().find(|finding| finding.invariant == invariant).expect("a finding");
    let count = finding.counted.iter().find(|count| count.what == what).map_or(0, |count| count.count);
    i64::try_from(count).expect("a small number")
}
