//! What these tests share.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use messaging::Record;
use serde_json::{Value, json};
use symphony_cli::api::Api;
use symphony_cli::audit::{Report, Target, audit};
use symphony_cli::commands::load::{Args, Summary, load};
use testkit::{Cluster, Env, Process};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Whoever starts servers of its own takes one of these: servers take a gigabyte, so only two tests at a time have some.
static PLACES: Semaphore = Semaphore::const_new(2);

/// A place for servers of one's own, until it is dropped.
pub(crate) async fn place_for_servers() -> SemaphorePermit<'static> {
    PLACES.acquire().await.expect("it is never closed")
}

/// Longer than any order takes that is not made to wait, on a slow machine too.
pub(crate) const SOON: Duration = Duration::from_secs(180);

/// Says that a test cannot be done here, and why: in the summary of `symphony test` too, as nobody sees what a test prints
/// that passes.
pub(crate) fn skipped(what: &str) {
    eprintln!("SKIPPED: {what}");
    let Some(file) = std::env::var_os("SYMPHONY_TEST_SKIPPED") else { return };
    let mut file =
        std::fs::OpenOptions::new().create(true).append(true).open(file).expect("the list of what is skipped");
    std::io::Write::write_all(&mut file, format!("{}\n", what.replace('\n', " ")).as_bytes()).expect("a line in it");
}

/// The folder of the stack that the commands see: a state file with the addresses of `cluster`.
pub(crate) fn data_dir(cluster: &Cluster<'_>) -> PathBuf {
    let folder = cluster.env().dir().join("stack");
    std::fs::create_dir_all(&folder).expect("a folder");
    let servers = cluster.env().servers();
    let mut components = vec![
        json!({ "name": "postgres", "url": format!("postgres://postgres@127.0.0.1:{}/postgres", servers.postgres) }),
        json!({ "name": "kafka", "url": format!("127.0.0.1:{}", servers.kafka) }),
    ];
    for service in ["order-api", "orchestrator", "payment-svc", "inventory-svc", "shipping-svc", "dlq-admin"] {
        if let Some(process) = cluster.instances(service).iter().find(|process| process.is_ready()) {
            components.push(json!({ "name": service, "url": process.url() }));
        }
    }
    // In one step: a load that reads it meanwhile sees the old or the new one.
    let next = folder.join("state.json.next");
    std::fs::write(&next, json!({ "components": components }).to_string()).expect("the state");
    std::fs::rename(&next, folder.join("state.json")).expect("the state");
    folder
}

/// The interfaces of `cluster` as the commands reach them.
pub(crate) fn api(cluster: &Cluster<'_>) -> Api {
    Api::new(data_dir(cluster).join("state.json")).expect("a client")
}

/// What `symphony load ORDERS --clients CLIENTS --mix MIX` does.
pub(crate) async fn placed(cluster: &Cluster<'_>, orders: u64, clients: u16, mix: &str) -> Summary {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }
    let (orders, clients) = (orders.to_string(), clients.to_string());
    let line = ["load", &orders, "--clients", &clients, "--mix", mix, "--patience", "300"];
    let line = <Line as clap::Parser>::try_parse_from(line).expect("arguments");
    load(&line.args, &api(cluster)).await.unwrap_or_else(|error| panic!("the load failed: {error:#}"))
}

/// Places orders, some hundreds at a time, for as long as `harm` takes, and then until all have ended. Gives what became
/// of them, and what `harm` gave.
pub(crate) async fn under_load<T>(
    cluster: &Cluster<'_>,
    mix: &str,
    harm: impl Future<Output = T>,
) -> (Vec<Summary>, T) {
    let over = AtomicBool::new(false);
    let load = async {
        let mut summaries = Vec::new();
        while !over.load(Ordering::Relaxed) {
            summaries.push(placed(cluster, 200, 8, mix).await);
        }
        summaries
    };
    let harm = async {
        let harmed = harm.await;
        over.store(true, Ordering::Relaxed);
        harmed
    };
    let (summaries, harmed) = tokio::join!(load, harm);
    for summary in &summaries {
        assert!(summary.is_complete(), "not every order has ended:\n{summary}");
    }
    (summaries, harmed)
}

/// Runs `work` and meanwhile starts again whatever has died, as a supervisor does. Gives the names of those too.
pub(crate) async fn supervised<T>(cluster: &Cluster<'_>, work: impl Future<Output = T>) -> (T, Vec<String>) {
    let mut revived = Vec::new();
    let supervisor = async {
        loop {
            let started = cluster.revive().await;
            if !started.is_empty() {
                data_dir(cluster);
                revived.extend(started);
            }
            // How often a supervisor looks, not a wait for something: `work` says when it ends.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let done = tokio::select! {
        done = work => done,
        () = supervisor => unreachable!("a supervisor never ends"),
    };
    (done, revived)
}

/// What the audit must look at.
pub(crate) fn target(env: &Env) -> Target {
    Target {
        postgres: format!("127.0.0.1:{}", env.servers().postgres),
        database_prefix: env.prefix().to_owned(),
        kafka: env.kafka().bootstrap_servers,
        topic_prefix: env.prefix().to_owned(),
        settle_within: Duration::from_secs(30),
        ready_since: None,
    }
}

/// What the audit says now.
pub(crate) async fn audited(env: &Env) -> Report {
    audit(&target(env)).await.unwrap_or_else(|error| panic!("the audit could not look: {error:#}"))
}

/// What the audit says now, where nothing is running and so nothing is to be waited for.
pub(crate) async fn judged(env: &Env) -> Report {
    let target = Target { settle_within: Duration::ZERO, ..target(env) };
    audit(&target).await.unwrap_or_else(|error| panic!("the audit could not look: {error:#}"))
}

/// The violations of `invariant`.
pub(crate) fn violations<'r>(report: &'r Report, invariant: &str) -> &'r [String] {
    let finding = report.findings.iter().find(|finding| finding.invariant == invariant);
    finding.map_or(&[], |finding| finding.violations.as_slice())
}

/// Does to `database` what no service may do.
pub(crate) async fn execute(env: &Env, database: &str, sql: &'static str) {
    let done = sqlx::raw_sql(sql).execute(&env.pool(database)).await;
    done.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// A message that no client of the platform would send.
pub(crate) fn record(topic: &str, key: Option<&[u8]>, payload: Option<&[u8]>, headers: &[(&str, &[u8])]) -> Record {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), Some(value.to_vec()))).collect();
    Record { headers, ..Record::unsent(topic, key.map(<[u8]>::to_vec), payload.map(<[u8]>::to_vec)) }
}

/// Every order has ended and every invariant holds.
pub(crate) async fn assert_all_ended_and_clean(cluster: &Cluster<'_>, summary: &Summary) {
    assert!(summary.is_complete(), "not every order has ended:\n{summary}");
    assert_clean(cluster.env()).await;
}

/// Every invariant holds.
pub(crate) async fn assert_clean(env: &Env) {
    let report = audited(env).await;
    assert!(report.is_clean(), "{report}");
}

/// The definition of the order saga in a folder of its own, for `SAGAS_DIR`, with each text replaced. The rules stay
/// those of `sagas/order.yaml`; only its patience changes, so that a test need not be as patient.
pub(crate) fn impatient(env: &Env, replacements: &[(&str, &str)]) -> String {
    let file = testkit::workspace::root().join("sagas/order.yaml");
    let mut yaml = std::fs::read_to_string(&file).expect("the definition");
    for (text, replacement) in replacements {
        assert!(yaml.contains(text), "{} has no {text:?}", file.display());
        yaml = yaml.replacen(text, replacement, 1);
    }
    let folder = env.dir().join("sagas");
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("order.yaml"), yaml).expect("the definition");
    folder.display().to_string()
}

/// A number of rows, or whatever else one value `sql` gives.
pub(crate) async fn number(env: &Env, database: &str, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(&env.pool(database)).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
}

/// The types of a saga's timeline entries, with the steps they are about.
pub(crate) fn path(saga: &Value) -> Vec<String> {
    let entries = saga["timeline"].as_array().expect("a timeline");
    let text = |entry: &Value, name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    entries.iter().map(|entry| format!("{} {}", text(entry, "type"), text(entry, "step")).trim().to_owned()).collect()
}

/// A metric of `process`, summed over its labels.
pub(crate) async fn metric(process: &Process, name: &str) -> f64 {
    let url = format!("{}/metrics", process.url());
    let text = reqwest::get(url).await.expect("an answer").text().await.expect("text");
    let samples = text.lines().filter_map(|line| line.rsplit_once(' '));
    let of_name = samples.filter(|(labelled, _)| labelled.split('{').next() == Some(name));
    of_name.filter_map(|(_, value)| value.parse::<f64>().ok()).sum()
}
