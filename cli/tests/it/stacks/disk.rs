//! A disk that is full.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use chrono::Utc;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::{SOON, Stack, place, port, until};
use crate::stand::skipped;

/// Room for a new cluster with all databases, and some more.
const SIZE: &str = "size=512m,mode=755";
const FULL: &str = "No space left on device";

/// A small disk of its own; it is gone with the value.
struct Disk {
    folder: TempDir,
}

impl Disk {
    /// Where this machine lets us mount one; else the reason.
    fn mount() -> Result<Self, String> {
        let disk = tempfile::tempdir().expect("a temporary folder");
        let mut mount = Command::new("mount");
        let output = mount.args(["-t", "tmpfs", "-o", SIZE, "tmpfs"]).arg(disk.path()).output();
        match output {
            Ok(output) if output.status.success() => Ok(Self { folder: disk }),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn filler(&self) -> PathBuf {
        self.folder.path().join("filler")
    }

    /// Leaves not one byte.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.filler()).expect("a file");
        let bytes = vec![0; 1 << 16];
        while file.write_all(&bytes).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.filler()).expect("its removal");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a server that still ends must not keep it.
        let unmounted = Command::new("umount").arg("--lazy").arg(self.folder.path()).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} stays mounted", self.folder.path().display());
        }
    }
}

/// The status that answers a new order.
fn order(stack: &Stack) -> u16 {
    let url = format!("http://127.0.0.1:{}/api/orders", port(&stack.component("order-api")));
    let answer = async {
        let client = reqwest::Client::new();
        client.post(url).json(&testkit::order()).timeout(Duration::from_secs(30)).send().await
    };
    // No answer is none that promises anything.
    Runtime::new().expect("a runtime").block_on(answer).map_or(0, |answer| answer.status().as_u16())
}

#[test]
fn orders_are_refused_while_the_databases_disk_is_full_and_none_is_lost() {
    let _place = place();
    let disk = match Disk::mount() {
        Ok(disk) => disk,
        Err(reason) => {
            return skipped(&format!("a full disk under PostgreSQL: no tmpfs can be mounted here: {}", reason.trim()));
        }
    };
    let stack = Stack::new();
    std::fs::create_dir_all(stack.data()).expect("a folder");
    let cluster = disk.folder.path().join("postgres");
    std::fs::write(stack.data().join("postgres-location"), cluster.as_os_str().as_encoded_bytes()).expect("a file");
    stack.succeed(&["up", "--detach"]);

    let (began, load) = (Utc::now(), stack.load(3_000));
    stack.in_full_swing(began);
    let fault = Utc::now();
    disk.fill();
    let said = || std::fs::read_to_string(stack.data().join("logs/postgres.log")).expect("a log").matches(FULL).count();
    until("PostgreSQL to find its disk full", SOON, || said() > 0);
    let mut refused = 0;
    until("an order to be refused", SOON, || {
        refused += u32::from(order(&stack) == 503);
        refused >= 3
    });
    disk.free();
    until("readiness", SOON, || stack.components().iter().all(|component| component["state"] == "ready"));
    let seconds = (Utc::now() - fault).num_seconds();
    eprintln!(
        "the disk was full {} times for PostgreSQL, {refused} orders were refused; over after {seconds} s",
        said()
    );
    stack.assert_survived(load, fault);
}
