//! One service whose clock is wrong. Deadlines are PostgreSQL's, so nobody else may notice.

use std::process::Command;

use chrono::{DateTime, TimeDelta, Utc};
use messaging::admin;
use testkit::{Env, wait_until, workspace};
use uuid::Uuid;

use crate::stand::{SOON, assert_clean, number, record, under_load};

const HOUR: i64 = 3_600;
/// Whose clock is stepped, who sets deadlines and fires timers and one who only answers, and a topic that each reads.
const STEPPED: [(&str, &str); 2] = [("orchestrator", "order.created"), ("payment-svc", "payment.requested")];

/// What the reader of `topic` takes for the time: it says so on the dead letter of a message that nobody understands.
async fn time_of_reader(env: &Env, topic: &str) -> DateTime<Utc> {
    let (kafka, key) = (env.kafka(), Uuid::new_v4().to_string());
    let poison = record(topic, Some(key.as_bytes()), Some(b"what time is it?"), &[]);
    admin::produce(&kafka.bootstrap_servers, &kafka.topic(topic), &[poison]).await.expect("it is sent");
    let dead = format!("{topic}.dlq");
    let letter = env.await_message(&dead, |letter| letter.key.as_deref() == Some(key.as_bytes())).await;
    let time = letter.header("dlq-first-failed-at").expect("a time");
    DateTime::parse_from_rfc3339(time).expect("a time").with_timezone(&Utc)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_stepped_by_an_hour_either_way_ends_no_order_before_its_time() {
    let env = Env::new("clock").await;
    let (library, offsets) = (env.dir().join("clock_step.so"), env.dir().join("clocks"));
    let source = workspace::root().join("cli/src/soak/clock_step.c");
    let mut compile = Command::new("cc");
    compile.args(["-shared", "-fPIC", "-O2", "-o"]).arg(&library).arg(&source).arg("-ldl");
    let compiled = compile.output().expect("a C compiler, as the build needs one");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    std::fs::create_dir_all(&offsets).expect("a folder");
    // In place: a running service has mapped this very file.
    let step = |service: &str, seconds: i64| {
        let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(offsets.join(service));
        let nanos = (seconds * 1_000_000_000).to_ne_bytes();
        std::io::Write::write_all(&mut file.expect("a file"), &nanos).expect("its content");
    };
    let mut cluster = env.cluster();
    for (service, _) in STEPPED {
        step(service, 0);
        cluster = cluster
            .set(service, "LD_PRELOAD", library.display())
            .set(service, "CLOCK_OFFSETS", offsets.display())
            .set(service, "SERVICE_INSTANCE", service);
    }
    let cluster = cluster.start().await;
    let ended = async || number(&env, "orders", "SELECT count(*) FROM orders WHERE status <> 'PENDING'").await;
    let steps = async {
        for seconds in [HOUR, -HOUR, 0] {
            for (service, topic) in STEPPED {
                step(service, seconds);
                let wrong = time_of_reader(&env, topic).await - Utc::now();
                let off = (wrong - TimeDelta::seconds(seconds)).abs();
                assert!(off < TimeDelta::minutes(1), "{service} is {wrong} ahead, not {seconds} s");
            }
            let before = ended().await;
            wait_until("orders to end by this clock", SOON, async || ended().await >= before + 100).await;
        }
    };
    let (loads, ()) = under_load(&cluster, "declined=5,unserved=10", steps).await;
    eprintln!("{} clocks stepped 3 times each, under {} orders", STEPPED.len(), 200 * loads.len());
    for summary in &loads {
        let of = |status: &str| summary.statuses.get(status).copied();
        assert_eq!((of("COMPLETED"), of("CANCELLED")), (Some(170), Some(30)), "a deadline passed before its time");
    }
    assert_clean(&env).await;
}
