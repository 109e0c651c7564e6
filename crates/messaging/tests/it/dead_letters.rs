use messaging::{Outgoing, Record};
use rand::Rng;

use crate::harness::{ANSWERS, COMMANDS, Harness, LIMIT, headers, message};
use crate::raw;
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

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_message_that_a_topic_takes_is_buried_whole_and_a_larger_letter_is_cut() {
    let harness = Harness::new().await;
    // Bytes that do not compress, as many as the broker takes with their headers.
    let mut incompressible = vec![0; 1_048_150];
    testkit::rng().fill_bytes(&mut incompressible);
    // On the wire this is a few kilobytes; unpacked it is far more than any topic takes.
    let compressible = vec![b'x'; 5_000_000];
    let large = Outgoing { payload: incompressible.clone(), ..message(COMMANDS, "a", "") };
    let packed = Outgoing { payload: compressible.clone(), ..message(COMMANDS, "a", "") };
    let member = harness.join();
    harness.env.send_all(&[large, packed, message(COMMANDS, "a", "after")]).await;
    harness.handled(1).await;
    let letters = letters(&harness, 2).await;
    member.stop().await;
    assert_eq!(harness.committed(COMMANDS).await, 3);
    let seen: Vec<_> = letters
        .iter()
        .map(|letter| (letter.payload.as_ref().map(Vec::len), letter.header("dlq-truncated-from")))
        .collect();
    // The test's own letter topic has the broker's default size, so the letter with its cause does not fit.
    assert!(seen.contains(&(Some(65_536), Some("1048150"))), "{seen:?}");
    assert!(seen.contains(&(Some(compressible.len()), None)), "{seen:?}");
}

/// A letter is cut to what is ours: a message may bring headers with the names of ours.
#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_is_too_large_for_the_headers_that_its_message_brought_is_cut_and_holds_nobody_up() {
    let harness = Harness::new().await;
    let member = harness.join();
    let kafka = harness.env.kafka();
    for (number, name) in ["dlq-note", "dlq-error", "dlq-headers-dropped"].into_iter().enumerate() {
        // Bytes that do not compress, nearly as many as the broker takes: with its cause the letter is too large.
        let mut noise = vec![0; 1_048_300];
        testkit::rng().fill_bytes(&mut noise);
        let brought: [(&[u8], &[u8]); 1] = [(name.as_bytes(), &noise)];
        raw::produce(&kafka.bootstrap_servers, &kafka.topic(COMMANDS), b"a", b"no JSON", &brought).await;
        harness.send(COMMANDS, &[("a", name)]).await;
        harness.handled(number + 1).await;
        let letter = letters(&harness, number + 1).await.pop().expect("a letter");
        assert_eq!(letter.headers.len(), 10, "{name}: {:?}", letter.headers);
        let headers = headers(&letter);
        assert_eq!((headers["dlq-reason"], headers["dlq-truncated-from"]), ("missing-header", "7"), "{name}");
        assert!(headers["dlq-error"].starts_with("missing-header"), "{name}: {headers:?}");
        assert_eq!(letter.payload.as_deref(), Some(b"no JSON".as_slice()), "{name}");
    }
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_says_how_many_headers_of_its_message_it_could_not_take_along() {
    let harness = Harness::with_commands_on(1).await;
    let kafka = harness.env.kafka();
    let headers: [(&[u8], &[u8]); 3] = [(b"\xff\xfe", b"lost"), (b"kept", b"here"), (b"\xc3\x28", b"lost")];
    raw::produce(&kafka.bootstrap_servers, &kafka.topic(COMMANDS), b"a", b"no JSON", &headers).await;
    harness.send(COMMANDS, &[("a", "after")]).await;
    let member = harness.join();
    harness.handled(1).await;
    let letter = letters(&harness, 1).await.pop().expect("a letter");
    member.stop().await;
    assert_eq!(letter.header("kept"), Some("here"));
    assert_eq!(letter.header("dlq-headers-dropped"), Some("2"));
    assert_eq!(letter.header("dlq-reason"), Some("missing-header"));
}

/// One consumer is one loop: while a poison is looked for, everything else waits. So the search must be short.
#[tokio::test(flavor = "multi_thread")]
async fn a_poison_among_five_hundred_is_found_in_twelve_tries() {
    let harness = Harness::with_commands_on(1).await;
    let values: Vec<String> = (0..500).map(|n| if n == 77 { "poison".to_owned() } else { n.to_string() }).collect();
    let keys: Vec<String> = values.iter().map(|_| harness.key()).collect();
    let messages: Vec<_> = keys.iter().map(String::as_str).zip(values.iter().map(String::as_str)).collect();
    harness.send(COMMANDS, &messages).await;
    let member = harness.join();
    let started = std::time::Instant::now();
    harness.handled(499).await;
    letters(&harness, 1).await;
    eprintln!("joined, found and buried after {:?}", started.elapsed());
    member.stop().await;
    let tries = harness.script.tries_with_poison.lock().await.clone();
    // The whole batch, then halves of it until the poison is alone, then alone until it was tried three times.
    assert!(tries.len() <= 12, "{tries:?}");
    assert_eq!(tries.iter().filter(|size| **size == 1).count(), 3, "{tries:?}");
}
