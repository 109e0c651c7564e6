use std::process::{Command, Output};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::support::{greeter, wait_for_address};

fn output(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn a_wrong_configuration_exits_64_with_every_error_and_no_port() {
    let directory = tempfile::tempdir().unwrap();
    let port_file = directory.path().join("port");
    let (code, stdout, stderr) = output(
        greeter()
            .env("HTTP_PORT", "many")
            .env("HTTP_PORT_FILE", &port_file)
            .env("GREETING_WORD", "")
            .env("LOG_FORMAT", "xml"),
    );
    assert_eq!(code, 64, "{stderr}");
    assert_eq!(stdout, "");
    for part in
        ["3 configuration errors", "HTTP_PORT=many: expected an integer", "greeting.word is empty", "LOG_FORMAT=xml"]
    {
        assert!(stderr.contains(part), "{part} in {stderr}");
    }
    assert!(!port_file.exists());
}

#[test]
fn the_effective_configuration_is_printed_without_passwords() {
    let (code, stdout, _) = output(
        greeter().arg("--print-config").env("DATABASE_URL", "postgres://a:hunter2@db/a").env("GREETING_WORD", "Hi"),
    );
    assert_eq!(code, 0);
    let table: toml::Table = stdout.parse().unwrap();
    assert_eq!(table["greeting"]["word"].as_str(), Some("Hi"));
    assert_eq!(table["database"]["url"].as_str(), Some("postgres://a:***@db/a"));
}

#[test]
fn the_api_is_printed_whatever_the_environment() {
    let (code, stdout, stderr) = output(greeter().arg("--openapi").env("HTTP_PORT", "many"));
    assert_eq!(code, 0, "{stderr}");
    let document: Value = serde_json::from_str(&stdout).unwrap();
    assert!(document["paths"]["/api/greetings/{name}"]["get"].is_object());
}

#[test]
fn help_is_printed_and_unknown_arguments_are_refused() {
    let (code, stdout, _) = output(greeter().arg("--help"));
    assert_eq!(code, 0);
    assert!(stdout.contains("[greeting]") && stdout.contains("[http]"), "{stdout}");
    let (code, _, stderr) = output(greeter().arg("--prnt-config"));
    assert_eq!(code, 2);
    assert!(stderr.contains("--prnt-config"), "{stderr}");
}

#[tokio::test]
async fn sigterm_drains_and_exits_0() {
    let directory = tempfile::tempdir().unwrap();
    let port_file = directory.path().join("port");
    let child = greeter().env("HTTP_PORT_FILE", &port_file).env("SHUTDOWN_DELAY_MS", "0").spawn().unwrap();
    let address = wait_for_address(&port_file).await;
    std::net::TcpStream::connect(&address).unwrap();
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    assert_eq!(status.code(), Some(0), "{}", String::from_utf8_lossy(&stderr));

    let log = String::from_utf8(stdout).unwrap();
    let events: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let listening = events.iter().find(|event| event["message"] == "listening").unwrap();
    assert_eq!(listening["http.address"], address);
    assert!(events.iter().any(|event| event["message"] == "drained"), "{log}");
}

#[tokio::test]
async fn a_second_signal_exits_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let port_file = directory.path().join("port");
    let child = greeter()
        .env("HTTP_PORT_FILE", &port_file)
        .env("SHUTDOWN_DELAY_MS", "60000")
        .env("SHUTDOWN_DEADLINE_MS", "120000")
        .spawn()
        .unwrap();
    wait_for_address(&port_file).await;
    let pid = Pid::from_raw(child.id().cast_signed());
    // Signals of one kind that come together are one: two kinds are two.
    kill(pid, Signal::SIGTERM).unwrap();
    kill(pid, Signal::SIGINT).unwrap();
    let code = child.wait_with_output().unwrap().status.code();
    assert!(matches!(code, Some(130 | 143)), "{code:?}");
}

#[test]
fn a_taken_port_exits_1_and_says_so() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (code, stdout, _) = output(greeter().env("HTTP_PORT", &port));
    assert_eq!(code, 1);
    assert!(stdout.contains(&format!("cannot listen on 127.0.0.1:{port}: Address already in use")), "{stdout}");
}
