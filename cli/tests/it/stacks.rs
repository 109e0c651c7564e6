//! `up`, `down` and what lies between, each test on a stack of its own.

mod capture;
mod certify;
mod disk;
mod restore;

use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;
use tokio::sync::SemaphorePermit;

use crate::stand::place_for_servers;

const SERVERS: [&str; 3] = ["postgres", "kafka", "connect"];
const SERVICES: [&str; 7] =
    ["order-api", "orchestrator", "payment-svc", "inventory-svc", "shipping-svc", "notification-svc", "dlq-admin"];

/// Longer than anything here takes on a slow machine.
const SOON: Duration = Duration::from_secs(180);

const ENDED: &str = "SELECT count(*) FROM orders WHERE created_at >= $1 AND status <> 'PENDING'";
const PENDING: &str = "SELECT count(*) FROM orders WHERE created_at >= $1 AND status = 'PENDING'";
/// Orders that were accepted before a moment and ended after it.
const CUT: &str = "SELECT count(*) FROM orders WHERE created_at < $1 AND updated_at > $1 AND status <> 'PENDING'";

/// A data directory with the commands on it. What still runs is ended with it.
struct Stack {
    folder: TempDir,
}

impl Stack {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data of a stack")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_symphony"));
        command.args(arguments).arg("--data-dir").arg(self.data()).stdin(Stdio::null());
        command
    }

    /// Runs `symphony` to its end. Its output is read to the end too, which comes only when nobody holds it.
    fn run(&self, arguments: &[&str]) -> Output {
        self.run_with(arguments, &[])
    }

    fn run_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
        self.command(arguments).envs(environment.iter().copied()).output().expect("the program under test")
    }

    /// A load of so many orders, some of which cannot succeed, that goes on until all have ended.
    fn load(&self, orders: u32) -> Child {
        let orders = orders.to_string();
        let mut command = self.command(&["load", &orders, "--clients", "32", "--mix", "declined=5,unserved=10"]);
        command.arg("--json").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a load")
    }

    /// A number, and a time of PostgreSQL's, from the orders' database.
    fn ask(&self, sql: &'static str, since: DateTime<Utc>) -> i64 {
        let url = format!("postgres://postgres@127.0.0.1:{}/orders", port(&self.component("postgres")));
        let answer = async {
            let mut connection = PgConnection::connect(&url).await?;
            sqlx::query_scalar(sql).bind(since).fetch_one(&mut connection).await
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(answer).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Waits until a load that began at `since` is in full swing: orders have ended, and others have not.
    fn in_full_swing(&self, since: DateTime<Utc>) {
        until("a load in full swing", SOON, || self.ask(ENDED, since) >= 100);
        assert!(self.ask(PENDING, since) > 0, "the load is over before the fault");
    }

    /// Every order of the load has ended, some of them in spite of a fault in their middle, and the audit is content.
    #[track_caller]
    fn assert_survived(&self, load: Child, fault: DateTime<Utc>) {
        let output = load.wait_with_output().expect("the load's end");
        let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), stderr(&output));
        assert!(output.status.success(), "not every order has ended: {told}");
        assert!(self.ask(CUT, fault) > 0, "the fault came in the middle of no order: {told}");
        let audit = self.run(&["audit"]);
        assert!(audit.status.success(), "{}{}", String::from_utf8_lossy(&audit.stdout), stderr(&audit));
    }

    fn supervisor(&self) -> nix::unistd::Pid {
        let file = std::fs::read(self.data().join("state.json")).expect("the state");
        let state: Value = serde_json::from_slice(&file).expect("JSON");
        let pid = state["supervisor"]["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
        nix::unistd::Pid::from_raw(pid.expect("a process id"))
    }

    #[track_caller]
    fn succeed(&self, arguments: &[&str]) -> Output {
        self.succeed_with(arguments, &[])
    }

    #[track_caller]
    fn succeed_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
        let output = self.run_with(arguments, environment);
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        output
    }

    fn components(&self) -> Vec<Value> {
        let state: Value = serde_json::from_slice(&self.succeed(&["status", "--json"]).stdout).expect("JSON");
        state["components"].as_array().expect("a list").clone()
    }

    fn component(&self, name: &str) -> Value {
        self.components().into_iter().find(|component| component["name"] == name).expect("a component")
    }

    fn pids(&self) -> Vec<u64> {
        self.components().iter().map(|component| component["pid"].as_u64().expect("a process")).collect()
    }

    fn ports(&self) -> Vec<u16> {
        self.components().iter().map(port).collect()
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if self.data().exists() {
            self.run(&["down", "--wipe"]);
        }
    }
}

fn place() -> SemaphorePermit<'static> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(place_for_servers())
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn port(component: &Value) -> u16 {
    let url = component["url"].as_str().expect("a URL");
    url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
}

fn runs(pid: u64) -> bool {
    // A zombie has no program any more.
    std::fs::read_link(format!("/proc/{pid}/exe")).is_ok()
}

fn listens(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[track_caller]
fn until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < limit, "{what}: not within {} s", limit.as_secs());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Holds a port if nobody does yet.
fn take(port: u16) -> Option<TcpListener> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => None,
        bound => Some(bound.expect("a port to hold")),
    }
}

#[test]
fn two_stacks_run_side_by_side_with_the_usual_ports_taken_and_leave_nothing() {
    let _place = place();
    let usual = [8081, 9092, 54_321];
    let _taken: Vec<_> = usual.into_iter().filter_map(take).collect();
    let (first, second) = (Stack::new(), Stack::new());
    // Two at once: one starts the stack, the other waits for it.
    let (one, other) = std::thread::scope(|scope| {
        let other = scope.spawn(|| first.succeed(&["up", "--detach"]));
        (first.succeed(&["up", "--detach"]), other.join().expect("the other up"))
    });
    let said = stderr(&one) + &stderr(&other);
    assert!(said.contains("port 54321 is taken"), "{said}");
    second.succeed(&["up", "--detach"]);

    for stack in [&first, &second] {
        let components = stack.components();
        let names: Vec<_> = components.iter().map(|component| component["name"].as_str().unwrap()).collect();
        assert_eq!(names, [SERVERS.as_slice(), &SERVICES].concat());
        assert!(components.iter().all(|component| component["state"] == "ready"), "{components:#?}");
        assert!(components.iter().all(|component| component["memoryBytes"].as_u64().unwrap() > 1_000_000));
    }
    let ports = [first.ports(), second.ports()].concat();
    assert!(ports.iter().all(|port| listens(*port) && !usual.contains(port)), "{ports:?}");

    let pids = [first.pids(), second.pids()].concat();
    let again = first.succeed(&["up", "--detach"]);
    assert!(stderr(&again).contains("runs already"));
    assert_eq!([first.pids(), second.pids()].concat(), pids);

    first.succeed(&["down"]);
    second.succeed(&["down", "--wipe"]);
    assert_eq!(pids.iter().find(|pid| runs(**pid)), None);
    assert_eq!(ports.iter().find(|port| listens(**port)), None);
    assert!(!second.data().exists());
    assert!(first.components().iter().all(|component| component["state"] == "stopped"));

    // Its data is there still.
    first.succeed(&["up", "--detach"]);
}

/// A component that does not answer any more is shown as not ready, is left alone, and is ready when it answers again.
fn hang(stack: &Stack, name: &str) {
    let ready = || stack.component(name)["state"] == "ready";
    until("readiness", SOON, ready);
    let before = stack.component(name);
    stack.succeed(&["kill", name, "--signal", "STOP"]);
    until("its silence to be seen", SOON, || !ready());
    let hung = stack.component(name);
    assert_eq!((&hung["state"], &hung["pid"]), (&Value::from("failed"), &before["pid"]));
    assert!(hung["reason"].as_str().is_some_and(|reason| reason.contains("suspended")), "{hung}");
    let start = stack.run(&["start", name]);
    assert!(!start.status.success() && stderr(&start).contains("suspended"), "{}", stderr(&start));
    stack.succeed(&["kill", name, "--signal", "CONT"]);
    until("readiness again", SOON, ready);
    assert_eq!(stack.component(name)["pid"], before["pid"]);
}

#[test]
fn a_killed_component_comes_back_and_a_stopped_one_does_not() {
    let _place = place();
    let stack = Stack::new();
    stack.succeed(&["up", "--detach"]);

    let before = stack.component("payment-svc")["pid"].as_u64().unwrap();
    stack.succeed(&["kill", "payment-svc"]);
    let is_new = || stack.component("payment-svc")["pid"].as_u64().is_some_and(|pid| pid != before);
    until("the next process", SOON, is_new);
    until("readiness", SOON, || stack.component("payment-svc")["state"] == "ready");
    assert_eq!(stack.component("payment-svc")["restarts"], 1);

    hang(&stack, "payment-svc");
    hang(&stack, "kafka");
    // Those that need Kafka had not been ready either.
    let all = || stack.components().iter().all(|component| component["state"] == "ready");
    until("readiness of all", SOON, all);

    stack.succeed(&["stop", "notification-svc"]);
    let stopped = stack.component("notification-svc");
    assert_eq!((&stopped["state"], &stopped["pid"]), (&Value::from("stopped"), &Value::Null));
    // Long enough for a restart, had one been due.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(stack.component("notification-svc"), stopped);
    stack.succeed(&["start", "notification-svc"]);
    assert_eq!(stack.component("notification-svc")["state"], "ready");

    stack.succeed(&["scale", "payment-svc", "3"]);
    let instances = || -> Vec<(u64, String)> {
        let all = stack.components().into_iter().filter(|component| component["name"] == "payment-svc");
        all.map(|one| (one["instance"].as_u64().unwrap(), one["state"].as_str().unwrap().to_owned())).collect()
    };
    let ready = |number| (number, "ready".to_owned());
    assert_eq!(instances(), [ready(1), ready(2), ready(3)]);
    for number in ["0", "17"] {
        assert_eq!(stack.run(&["scale", "payment-svc", number]).status.code(), Some(2), "{number}");
    }
    stack.succeed(&["stop", "payment-svc/2"]);
    assert_eq!(instances(), [ready(1), (2, "stopped".into()), ready(3)]);
    stack.succeed(&["restart", "payment-svc"]);
    assert_eq!(instances(), [ready(1), ready(2), ready(3)]);
    stack.succeed(&["scale", "payment-svc", "1"]);
    assert_eq!(instances(), [ready(1)]);
    assert!(!stack.succeed(&["logs", "payment-svc", "-n", "5"]).stdout.is_empty());

    for command in ["stop", "logs"] {
        let unknown = stack.run(&[command, "payments"]);
        assert_eq!(unknown.status.code(), Some(1));
        assert!(stderr(&unknown).contains("payment-svc"), "the names that exist are told");
    }
    assert_eq!(stack.run(&["kill", "kafka", "--signal", "NONE"]).status.code(), Some(2));
}

#[test]
fn faults_in_the_middle_of_a_load_lose_nothing() {
    let _place = place();
    let stack = Stack::new();
    stack.succeed(&["up", "--detach"]);

    let (began, load) = (Utc::now(), stack.load(3_000));
    stack.in_full_swing(began);
    let fault = Utc::now();
    stack.succeed(&["kill", "orchestrator"]);
    stack.succeed(&["kill", "payment-svc"]);
    stack.assert_survived(load, fault);
    assert_eq!(stack.component("orchestrator")["restarts"], 1);

    for name in SERVERS {
        let (began, load) = (Utc::now(), stack.load(3_000));
        stack.in_full_swing(began);
        let fault = Utc::now();
        stack.succeed(&["kill", name]);
        until("its next process", SOON, || stack.component(name)["restarts"] == 1);
        until("readiness", SOON, || stack.component(name)["state"] == "ready");
        eprintln!("{name} was killed, and was ready again {} s later", (Utc::now() - fault).num_seconds());
        stack.assert_survived(load, fault);
    }

    let (began, load) = (Utc::now(), stack.load(2_000));
    stack.in_full_swing(began);
    let fault = Utc::now();
    stack.succeed(&["down"]);
    stack.succeed(&["up", "--detach"]);
    stack.assert_survived(load, fault);

    // A killed supervisor takes everything along, PostgreSQL and Kafka too.
    let (began, load) = (Utc::now(), stack.load(2_000));
    stack.in_full_swing(began);
    let (pids, fault) = (stack.pids(), Utc::now());
    nix::sys::signal::kill(stack.supervisor(), nix::sys::signal::Signal::SIGKILL).unwrap();
    until("the end of all", SOON, || !pids.iter().any(|pid| runs(*pid)));
    assert!(stack.components().iter().all(|component| component["state"] == "stopped"));
    stack.succeed(&["up", "--detach"]);
    stack.assert_survived(load, fault);
}

#[test]
fn a_start_that_fails_says_what_it_waited_for_and_leaves_nothing_running() {
    let _place = place();
    let stack = Stack::new();
    stack.succeed(&["up", "--detach", "--servers-only"]);
    stack.succeed(&["down"]);
    let cluster = match std::fs::read_to_string(stack.data().join("postgres-location")) {
        Ok(elsewhere) => PathBuf::from(elsewhere),
        Err(_) => stack.data().join("postgres"),
    };
    std::fs::write(cluster.join("PG_VERSION"), "9\n").unwrap();

    let failed = stack.run(&["up", "--detach"]);
    assert_eq!(failed.status.code(), Some(1));
    let said = stderr(&failed);
    assert!(said.contains("a connection to PostgreSQL"), "{said}");
    assert!(said.contains("not compatible with this version"), "the end of the log is shown: {said}");
    assert!(stack.components().iter().all(|component| component["pid"].is_null()));
    assert!(stack.run(&["down"]).status.success());
}
