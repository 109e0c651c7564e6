//! The example participant in another language, in place of shipping-svc.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use testkit::{Env, order, order_with, wait_until, workspace};

use crate::stand::{SOON, path};

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
    let answer: serde_json::Value = scheduled[0].json().expect("JSON");
    assert_eq!(answer["orderId"], json!(good));
    assert!(answer["trackingCode"].as_str().is_some_and(|code| code.starts_with("PY")), "{answer}");

    // Killed and started again it answers a repeated command with the same bytes.
    first.kill9();
    let command = env
        .read_topic("shipping.requested")
        .await
        .into_iter()
        .find(|record| record.key.as_deref() == Some(good.to_string().as_bytes()));
    let kafka = env.kafka();
    let again = [command.expect("the command")];
    messaging::admin::produce(&kafka.bootstrap_servers, &kafka.topic("shipping.requested"), &again)
        .await
        .expect("sent");
    let second = participant(&env, &python);
    let mut answers = Vec::new();
    wait_until("the answer to be repeated", Duration::from_secs(60), async || {
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
