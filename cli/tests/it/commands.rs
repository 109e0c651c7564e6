//! The commands as users run them.

use std::process::{Command, Output};

use serde_json::Value;
use testkit::{Env, workspace};

use crate::stand::data_dir;

/// Runs `symphony` with `arguments` on the stack in `folder`.
fn symphony(folder: &std::path::Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_symphony"));
    command.arg("--data-dir").arg(folder).args(arguments);
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", stdout(output), String::from_utf8_lossy(&output.stderr)))
}

#[tokio::test(flavor = "multi_thread")]
async fn order_load_sagas_and_audit_do_what_they_say() {
    let env = Env::new("commands").await;
    let cluster = env.cluster().start().await;
    let folder = data_dir(&cluster);
    let run = |arguments: &[&str]| symphony(&folder, arguments);

    let watched = run(&["order", "--quantity", "3", "--watch"]);
    assert!(watched.status.success());
    assert!(stdout(&watched).trim_end().ends_with("COMPLETED"), "{}", stdout(&watched));
    let told = String::from_utf8_lossy(&watched.stderr).into_owned();
    for part in ["STARTED", "payment", "inventory", "shipping"] {
        assert!(told.contains(part), "{part} is not shown: {told}");
    }

    let refused = run(&["order", "--country", "AQ", "--watch", "--json"]);
    assert!(refused.status.success());
    let refused = json(&refused);
    assert_eq!(refused["status"], "CANCELLED");
    assert!(refused["reason"].is_string());

    let invalid = run(&["order", "--quantity", "0"]);
    assert_eq!(invalid.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&invalid.stderr).contains("/items/0/quantity"));

    let id = refused["orderId"].as_str().expect("an id");
    let shown = run(&["sagas", "show", id]);
    assert!(stdout(&shown).contains("COMPENSATED") && stdout(&shown).contains("STEP_FAILED"), "{}", stdout(&shown));
    let listed = json(&run(&["sagas", "list", "--state", "COMPENSATED", "--json"]));
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(1), "{listed}");
    assert!(stdout(&run(&["sagas", "list"])).contains("COMPLETED"));

    let load = json(&run(&["load", "200", "--clients", "8", "--mix", "declined=5,unserved=10", "--json"]));
    assert_eq!((&load["accepted"], &load["statuses"]["CANCELLED"]), (&Value::from(200), &Value::from(30)), "{load}");

    let audit = run(&["audit", "--database-prefix", env.prefix(), "--topic-prefix", env.prefix()]);
    assert!(audit.status.success(), "{}", stdout(&audit));
    assert!(stdout(&audit).contains("I8") && stdout(&audit).contains("clean"), "{}", stdout(&audit));
}

#[test]
fn sagas_check_names_the_place_of_a_mistake_and_a_way_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let good = workspace::root().join("sagas/order.yaml");
    let checked = symphony(folder.path(), &["sagas", "check", &good.display().to_string()]);
    assert!(checked.status.success(), "{}", stdout(&checked));

    let yaml =
        std::fs::read_to_string(&good).expect("the definition").replacen("after: [payment]", "after: [paymnet]", 1);
    let line = yaml.lines().position(|line| line.contains("paymnet")).expect("the mistake") + 1;
    let bad = folder.path().join("bad.yaml");
    std::fs::write(&bad, yaml).expect("a file");
    let checked = symphony(folder.path(), &["sagas", "check", &bad.display().to_string()]);
    assert_eq!(checked.status.code(), Some(1));
    let text = stdout(&checked);
    assert!(text.contains(&format!("bad.yaml:{line}:")) && text.contains("hint"), "{text}");
}

#[test]
fn without_a_stack_a_command_says_how_to_start_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = symphony(folder.path(), &["order"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("symphony up"));
    assert_eq!(symphony(folder.path(), &["order", "--quantity", "many"]).status.code(), Some(2));
}

#[test]
fn the_script_explains_itself_before_anything_is_built_and_builds_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let target = folder.path().join("target");
    let script = |arguments: &[&str]| {
        let mut command = Command::new(workspace::root().join("symphony"));
        command.args(arguments).env("CARGO_TARGET_DIR", &target).output().expect("the script")
    };
    for arguments in [["--help"].as_slice(), &["help"], &["up", "--help"], &["--data-dir", "up", "-h"]] {
        let output = script(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(stdout(&output).contains("./symphony up"), "{arguments:?}");
    }
    for arguments in [["status"].as_slice(), &["no-such-command"], &["completions", "bash"]] {
        let output = script(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("./symphony up builds it"), "{arguments:?}");
    }
    assert_eq!(script(&[]).status.code(), Some(2));
    assert!(!target.exists(), "something was built");
}

#[test]
fn doctor_names_what_is_missing_and_what_brings_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_symphony"));
    command.args(["doctor", "--data-dir"]).arg(folder.path().join("data"));
    command.env("PATH", folder.path()).env_remove("JAVA_HOME").env("SYMPHONY_CACHE", folder.path().join("cache"));
    let output = command.output().expect("the program under test");
    assert_eq!(output.status.code(), Some(1));
    let told = stdout(&output);
    for package in ["default-jre-headless", "maven", "xz-utils", "tar", "util-linux"] {
        assert!(told.contains(package), "{package} is not named: {told}");
    }
    assert!(!folder.path().join("data").exists() && !folder.path().join("cache").exists());
}

#[test]
fn down_touches_no_folder_that_is_not_a_stack() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("logs")).expect("a folder");
    let output = symphony(folder.path(), &["down", "--wipe"]);
    assert!(output.status.success());
    assert!(folder.path().join("logs").is_dir() && !folder.path().join("lock").exists());
}
