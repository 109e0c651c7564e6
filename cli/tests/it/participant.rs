//! The example participant in another language, in place of shipping-svc.

use messaging::admin::{self, TopicSpec};
use messaging::{Outgoing, Record};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use testkit::{Env, order, order_with, wait_until, workspace};
use uuid::Uuid;

use crate::stand::{SOON, path, record};

/// The Python that has what the example requires, installed once for all runs.
fn python() -> PathBuf {
    let example = workspace::root().join("examples/python-participant");
    let requirements = example.join("requirements.txt");
    let environment = workspace::program("symphony").with_file_name("python-participant");
    let python = environment.join("bin/python");
    let installed = environment.join("requirements.txt");
    let wanted = std::fs::read(&requirements).expect("the requirements");
    if std::fs::read(&installed).is_ok_and(|found| found == wanted) {
        return python;
    }
    succeed(Command::new("python3").args(["-m", "venv"]).arg(&environment));
    succeed(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--requirement"]).arg(&requirements));
    std::fs::write(&installed, wanted).expect("a note of what is installed");
    python
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The example, started as its README says.
fn participant(env: &Env, python: &Path) -> testkit::Child {
    let script = workspace::root().join("examples/python-participant/participant.py");
    let kafka = env.kafka();
    testkit::Child::start(
        env.dir(),
        "python-participant",
        python,
        &[&script.display().to_string()],
        &[
            ("KAFKA_BOOTSTRAP_SERVERS", &kafka.bootstrap_servers),
            ("TOPIC_PREFIX", &kafka.topic_prefix),
            ("GROUP_ID", "shipping-svc"),
            ("DATABASE_PATH", &env.dir().join("shipments.sqlite").display().to_string()),
        ],
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_participant_in_python_takes_the_place_of_a_service() {
    let python = tokio::task::spawn_blocking(python).await.expect("Python with its packages");
    let env = Env::new("python").await;
    let cluster = env.cluster().instances("shipping-svc", 0).start().await;
    let first = participant(&env, &python);

    let good = cluster.place(&order()).await;
    assert_eq!(cluster.ended(good, SOON).await["status"], "COMPLETED", "{}", first.log());
    let refused = cluster.place(&order_with("/shipping/country", "AQ")).await;
    let end = cluster.ended(refused, SOON).await;
    assert_eq!(end["status"], "CANCELLED", "{end}");
    assert!(path(&cluster.saga(refused).await).contains(&"STEP_FAILED shipping".to_owned()));
    let scheduled = env.read_topic("shipping.scheduled").await;
    assert_eq!(scheduled.len(), 1);
    let answer: Value = scheduled[0].json().expect("JSON");
    assert_eq!(answer["orderId"], json!(good));
    assert!(answer["trackingCode"].as_str().is_some_and(|code| code.starts_with("PY")), "{answer}");

    // Killed and started again it answers a repeated command with the same bytes.
    first.kill9();
    let kafka = env.kafka();
    let again = [command(&env, good).await];
    admin::produce(&kafka.bootstrap_servers, &kafka.topic("shipping.requested"), &again).await.expect("sent");
    let second = participant(&env, &python);
    let mut answers = Vec::new();
    wait_until("the answer to be repeated", SOON, async || {
        answers = env.read_topic("shipping.scheduled").await;
        answers.len() >= 2
    })
    .await;
    assert_eq!(
        (&answers[0].payload, &answers[0].headers),
        (&answers[1].payload, &answers[1].headers),
        "{}",
        second.log()
    );
}

/// The command that asked to ship `order`.
async fn command(env: &Env, order: Uuid) -> Record {
    let commands = env.read_topic("shipping.requested").await;
    let key = order.to_string();
    commands.into_iter().find(|record| record.key.as_deref() == Some(key.as_bytes())).expect("the command")
}

fn with_header(record: &Record, name: &str, value: &str) -> Record {
    let mut record = record.clone();
    record.headers.retain(|(header, _)| header != name);
    record.headers.push((name.to_owned(), Some(value.as_bytes().to_vec())));
    record
}

/// Makes `topic` anew, so that it takes no message above `bytes`.
async fn shrink(env: &Env, topic: &str, bytes: usize) {
    let kafka = env.kafka();
    let name = kafka.topic(topic);
    admin::delete_topics(&kafka.bootstrap_servers, &[&name]).await.expect("deleted");
    wait_until("the topic to be gone", SOON, async || {
        !admin::list_topics(&kafka.bootstrap_servers).await.expect("the topics").contains_key(&name)
    })
    .await;
    let config = [("max.message.bytes".to_owned(), bytes.to_string())].into();
    let spec = TopicSpec { name, partitions: 4, replication: 1, config };
    admin::create_topics(&kafka.bootstrap_servers, &[spec]).await.expect("made");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_participant_in_python_buries_what_it_cannot_read_whatever_its_size_and_goes_on() {
    let python = tokio::task::spawn_blocking(python).await.expect("Python with its packages");
    let env = Env::new("python-poison").await;
    shrink(&env, "shipping.cancel.requested.dlq", 100_000).await;
    let cluster = env.cluster().instances("shipping-svc", 0).start().await;
    let participant = participant(&env, &python);
    let order = cluster.place(&order()).await;
    assert_eq!(cluster.ended(order, SOON).await["status"], "COMPLETED", "{}", participant.log());

    let good = command(&env, order).await;
    let value: Value = good.json().expect("JSON");
    let with_value = |change: &dyn Fn(&mut Value)| {
        let mut value = value.clone();
        change(&mut value);
        Record { payload: Some(value.to_string().into_bytes()), ..good.clone() }
    };
    let lone_surrogate = value.to_string().replace(r#""FR""#, r#""\ud800""#);
    let poisons = [
        // An answer that repeats this is larger than its topic takes.
        (with_value(&|value| value["country"] = json!("X".repeat(990_000))), "invalid-json"),
        (Record { payload: Some(lone_surrogate.into_bytes()), ..good.clone() }, "invalid-json"),
        (Record { payload: None, ..good.clone() }, "empty-payload"),
        (Record { key: None, ..good.clone() }, "invalid-key"),
        (with_header(&good, "ce_specversion", "0.3"), "unsupported-specversion"),
        (with_header(&good, "ce_time", "yesterday"), "invalid-header"),
        (with_header(&good, "ce_id", "seven"), "invalid-header"),
        (with_header(&good, "ce_step", &"x".repeat(500_000)), "invalid-header"),
        (with_header(&good, "ce_source", ""), "missing-header"),
        (with_header(&good, "ce_subject", "another"), "key-subject-mismatch"),
        (with_header(&good, "ce_type", "com.chaossymphony.shipping.requested.v9"), "unexpected-type"),
        (with_value(&|value| value["orderId"] = json!(Uuid::nil())), "subject-mismatch"),
    ];
    let kafka = env.kafka();
    let records: Vec<Record> = poisons.iter().map(|(record, _)| record.clone()).collect();
    admin::produce(&kafka.bootstrap_servers, &kafka.topic("shipping.requested"), &records).await.expect("sent");
    // As large as a topic takes, and what was small only while it was compressed. The second's dead letters are on a
    // topic that is too small, so its letter is cut.
    let noise: Vec<u8> = (0..65_000).flat_map(|_| Uuid::new_v4().into_bytes()).collect();
    let on = |topic: &str, payload: Vec<u8>| {
        let event_type = format!("com.chaossymphony.{topic}.v1");
        let id = saga::ids::command_id;
        let command = testkit::participant::command((topic, &event_type), id, "shipping", Uuid::now_v7(), &Value::Null);
        Outgoing { payload, ..command }
    };
    let sized = [noise.clone(), vec![b'x'; 5_000_000]].map(|payload| on("shipping.requested", payload));
    env.send_all(&sized).await;
    env.send(on("shipping.cancel.requested", noise)).await;
    // So large with the headers that it brought, which have the names of ours, that its letter is cut.
    let noise = (0..30_000).flat_map(|_| Uuid::new_v4().into_bytes()).collect();
    let mut large = record("shipping.cancel.requested", Some(b"k"), Some(b"no JSON"), &[]);
    large.headers = ["dlq-note", "dlq-error"].map(|name| (name.to_owned(), Some(Vec::clone(&noise)))).to_vec();
    let topic = kafka.topic("shipping.cancel.requested");
    admin::produce(&kafka.bootstrap_servers, &topic, &[large]).await.expect("sent");

    let next = cluster.place(&testkit::order()).await;
    assert_eq!(cluster.ended(next, SOON).await["status"], "COMPLETED", "{}", participant.log());
    let mut letters = Vec::new();
    wait_until("every poison to be buried", SOON, async || {
        letters = env.read_topic("shipping.requested.dlq").await;
        letters.len() >= poisons.len() + sized.len()
    })
    .await;
    let of_sized = sized.iter().map(|message| (Some(&message.payload), "invalid-json"));
    let expected = poisons.iter().map(|(record, reason)| (record.payload.as_ref(), *reason)).chain(of_sized);
    for (payload, reason) in expected {
        let is = |letter: &Record| letter.payload.as_ref() == payload && letter.header("dlq-reason") == Some(reason);
        let size = payload.map_or(0, Vec::len);
        assert!(letters.iter().any(is), "no letter of {size} bytes for {reason}: {}", participant.log());
    }
    let brought = |letter: &Record| letter.header("dlq-truncated-from") == Some("7");
    assert_eq!(env.await_message("shipping.cancel.requested.dlq", brought).await.headers.len(), 10);
    let cut = env.await_message("shipping.cancel.requested.dlq", |letter| !brought(letter)).await;
    assert_eq!((cut.payload.map(|bytes| bytes.len()), cut.headers.len()), (Some(65_536), 10));
}
