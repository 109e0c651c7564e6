use messaging::{Outgoing, Record};

use crate::harness::{ANSWERS, COMMANDS, Harness, LIMIT, headers, message};
use testkit::wait_until;

async fn letters(harness: &Harness, count: usize) -> Vec<Record> {
    wait_until(&format!("{count} dead letters"), LIMIT, async || harness.letters().await.len() >= count).await;
    harness.letters().await
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_nobody_understands_are_buried_whole_and_their_neighbours_live() {
    let harness = Harness::new().await;
    let good = message(COMMANDS, "a", "before");
    let bytes = Outgoing { payload: b"\xff\x00 not JSON".to_vec(), ..message(COMMANDS, "a", "") };
    let empty = Outgoing { payload: Vec::new(), ..message(COMMANDS, "a", "") };
    let stranger = Outgoing { event_type: "com.example.other.v9".into(), ..message(COMMANDS, "a", "x") };
    let mismatch = Outgoing { subject: "b".into(), ..message(COMMANDS, "a", "x") };
    let after = message(COMMANDS, "a", "after");
    harness.env.send_all(&[good, bytes.clone(), empty, stranger, mismatch, after]).await;
    let member = harness.join();
    harness.handled(2).await;
    let letters = letters(&harness, 4).await;
    member.stop().await;

    assert_eq!(harness.script.values().await, ["before", "after"]);
    let reasons: Vec<&str> = letters.iter().filter_map(|letter| letter.header("dlq-reason")).collect();
    assert_eq!(reasons, ["invalid-json", "empty-payload", "unexpected-type", "key-subject-mismatch"]);
    let first = headers(&letters[0]);
    assert_eq!(letters[0].payload.as_deref(), Some(bytes.payload.as_slice()));
    assert_eq!(letters[0].key.as_deref(), Some(b"a".as_slice()));
    assert_eq!(first["ce_id"], bytes.id.to_string());
    assert_eq!(first["dlq-topic"], COMMANDS);
    assert_eq!(first["dlq-consumer-group"], "test");
    assert_eq!(first["dlq-offset"], "1");
    assert!(first["dlq-error"].contains("invalid-json"), "{first:?}");
    assert_eq!(harness.committed(COMMANDS).await, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_can_never_be_applied_is_found_in_its_batch_and_buried_alone() {
    let harness = Harness::new().await;
    harness
        .send(
            COMMANDS,
            &[("a", "1"), ("b", "2"), ("c", "3"), ("c", "poison"), ("c", "4"), ("d", "panic"), ("d", "5"), ("e", "6")],
        )
        .await;
    let member = harness.join();
    harness.handled(6).await;
    let letters = letters(&harness, 2).await;
    member.stop().await;

    let mut handled = harness.script.values().await;
    handled.sort();
    handled.dedup();
    assert_eq!(handled, ["1", "2", "3", "4", "5", "6"]);
    let mut reasons: Vec<_> = letters
        .iter()
        .map(headers)
        .map(|headers| (headers["dlq-reason"].to_owned(), headers["dlq-attempts"].to_owned()))
        .collect();
    reasons.sort();
    let expected =
        [("handler-error", "3"), ("test-poison", "3")].map(|(reason, tries)| (reason.to_owned(), tries.to_owned()));
    assert_eq!(reasons, expected);
    assert_eq!(harness.committed(COMMANDS).await, 8);
    assert!(harness.env.read_topic(ANSWERS).await.len() >= 6);
}
