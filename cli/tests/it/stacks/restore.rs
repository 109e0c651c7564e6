//! Going back to a backup that was taken in the middle of a load.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use chrono::Utc;
use serde_json::Value;
use sqlx::{Connection, PgConnection};
use tokio::runtime::Runtime;

use super::{SOON, Stack, place, port, stderr, until};

/// Order and status.
type Orders = BTreeMap<String, String>;

impl Stack {
    fn orders(&self) -> Orders {
        let url = format!("postgres://postgres@127.0.0.1:{}/orders", port(&self.component("postgres")));
        let read = async {
            let mut connection = PgConnection::connect(&url).await?;
            sqlx::query_as("SELECT id::text, status FROM orders").fetch_all(&mut connection).await
        };
        let rows: Vec<(String, String)> = Runtime::new().expect("a runtime").block_on(read).expect("the orders");
        rows.into_iter().collect()
    }

    /// All orders once each of them has ended.
    fn ended(&self) -> Orders {
        let all_ended = || self.orders().values().all(|status| status != "PENDING");
        until("the end of every order", SOON, all_ended);
        self.orders()
    }

    #[track_caller]
    fn is_clean(&self) {
        let audit = self.run(&["audit"]);
        assert!(audit.status.success(), "{}{}", String::from_utf8_lossy(&audit.stdout), stderr(&audit));
    }

    #[track_caller]
    fn refuses(&self, arguments: &[&str], words: &str) {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(words), "{arguments:?}: {}", stderr(&output));
    }

    #[track_caller]
    fn restores(&self, backup: &str) -> Value {
        let output = self.succeed(&["restore", backup, "--yes", "--json"]);
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// Kills a restore as soon as the backup is in the cluster's place, before Kafka is brought to its point.
    fn restore_is_killed(&self, backup: &str) {
        let mut restore = self.command(&["restore", backup, "--yes"]).spawn().expect("a restore");
        let placed = || {
            let file = std::fs::read(self.data().join("restore.json")).unwrap_or_default();
            serde_json::from_slice::<Value>(&file).is_ok_and(|begun| begun["placed"] == true)
        };
        until("the backup to be in its place", SOON, placed);
        restore.kill().expect("the kill");
        restore.wait().expect("the end");
    }
}

/// Every file below `folder`.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Changes one byte in the middle of the largest file; returns its path.
fn damage(backup: &Path) -> PathBuf {
    let files = files(&backup.join("cluster"));
    let largest = files.into_iter().max_by_key(|file| file.metadata().expect("a file").len()).expect("files");
    let mut content = std::fs::read(&largest).expect("content");
    let middle = content.len() / 2;
    content[middle] ^= 1;
    std::fs::write(&largest, content).expect("the damage");
    largest
}

#[test]
fn every_accepted_order_survives_the_loss_of_all_that_the_databases_wrote_after_a_backup() {
    let _place = place();
    let stack = Stack::new();
    let backup = stack.folder.path().join("backup");
    let folder = backup.to_str().expect("UTF-8");
    stack.refuses(&["backup"], "no stack runs here");
    stack.succeed(&["up", "--detach"]);
    let (began, load) = (Utc::now(), stack.load(6_000));
    stack.in_full_swing(began);
    stack.succeed(&["backup", "--to", folder]);
    assert!(load.wait_with_output().expect("the load's end").status.success());
    // Whatever the load has placed by then, these came after the backup.
    assert!(stack.load(200).wait_with_output().expect("the load's end").status.success());
    let before = stack.ended();
    stack.refuses(&["backup", "--to", folder], "overwrites nothing");
    stack.refuses(&["restore", folder, "--yes"], "symphony down first");
    stack.succeed(&["down"]);
    stack.refuses(&["restore", folder], "say --yes");
    let align = ["restore", "--align", "--postgres", "127.0.0.1:1", "--kafka", "127.0.0.1:1"];
    stack.refuses(&align, "say --yes");

    stack.restore_is_killed(folder);
    stack.refuses(&["up", "--detach"], "finish it with `symphony restore");
    // In its place it is whole without its folder.
    let elsewhere = stack.folder.path().join("elsewhere");
    std::fs::rename(&backup, &elsewhere).expect("the backup is moved");
    let recovered = stack.restores(folder);
    std::fs::rename(&elsewhere, &backup).expect("the backup is back");
    assert!(recovered["orders"].as_array().is_some_and(|orders| !orders.is_empty()), "{recovered}");
    assert!(recovered["publishedAgain"].as_u64() > Some(0), "those at least have not ended: {recovered}");
    assert!(recovered["discarded"].as_i64() > Some(0), "{recovered}");
    // Before anybody has published them again.
    assert_eq!(stack.restores(folder)["orders"], recovered["orders"]);
    stack.succeed(&["up", "--detach"]);
    assert_eq!(stack.ended(), before);
    stack.is_clean();
    stack.succeed(&["order", "--watch"]);
    stack.succeed(&["down"]);

    // Elsewhere, without Kafka's data: what it alone knew is lost, and nothing else.
    let other = Stack::new();
    let elsewhere = other.restores(folder);
    assert_eq!(elsewhere["orders"].as_array().map(Vec::len), Some(0), "{elsewhere}");
    other.succeed(&["up", "--detach"]);
    let ended = other.ended();
    assert_eq!(ended.len() + recovered["orders"].as_array().map_or(0, Vec::len), before.len());
    assert!(ended.iter().all(|(order, status)| before.get(order) == Some(status)));
    other.is_clean();
    other.succeed(&["down"]);

    let damaged = damage(&backup);
    let name = damaged.to_str().expect("UTF-8");
    let was = std::fs::read_dir(other.data()).expect("the data").count();
    other.refuses(&["restore", folder, "--yes"], name);
    std::fs::remove_file(&damaged).expect("a file");
    other.refuses(&["restore", folder, "--yes"], name);
    assert!(!other.data().join("restore.json").exists());
    assert_eq!(std::fs::read_dir(other.data()).expect("the data").count(), was, "nothing was put aside");
    other.succeed(&["up", "--detach", "--servers-only"]);
    assert_eq!(other.orders(), ended);
}
