//! No space left where PostgreSQL writes.

use std::fs::File;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};
use nix::fcntl::posix_fallocate;
use nix::sys::statvfs::statvfs;
use sqlx::Connection as _;

use super::Injected;
use crate::soak::stand::Stand;

/// How long the disk stays full.
const HELD: Duration = Duration::from_secs(10);
/// The SQLSTATE of a full disk.
const DISK_FULL: &str = "53100";
/// Needs space at once; rolled back by its failure.
const GROW: &str = "CREATE TABLE soak_growth AS SELECT repeat('x', 1000) FROM generate_series(1, 20000)";
const SHRINK: &str = "DROP TABLE IF EXISTS soak_growth";

/// Fills the disk of PostgreSQL to its last byte, and frees it.
pub(super) async fn fill(stand: &Stand) -> anyhow::Result<Injected> {
    let disk = stand.disk().map_err(|why| anyhow!(why))?;
    let before = log_says(stand);
    let file = File::create(disk.folder.join("filler"))?;
    let space = statvfs(&disk.folder)?;
    let mut size = 0_i64;
    let mut step = i64::try_from(space.blocks_available() * space.fragment_size())?;
    // Others write meanwhile: what does not fit is tried again with half of it.
    while step >= 4096 {
        match posix_fallocate(&file, size, step) {
            Ok(()) => size += step,
            Err(_) => step /= 2,
        }
    }
    let since = Instant::now();
    let mut refused = 0_u32;
    while since.elapsed() < HELD {
        refused += u32::from(is_refused(stand).await);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    free(stand)?;
    let from = Instant::now();
    if let Ok(mut connection) = stand.database("postgres").await {
        let _ = sqlx::query(SHRINK).execute(&mut connection).await;
    }
    let said = log_says(stand);
    let said = said - before;
    ensure!(refused > 0 || said > 0, "nothing was refused for want of space");
    let proof =
        format!("{} MB filled, {refused} statements refused with {DISK_FULL}, {said} lines of its log", size >> 20);
    Ok(Injected { target: "postgres".into(), proof, from })
}

/// Gives the space back.
pub(super) fn free(stand: &Stand) -> anyhow::Result<()> {
    let Ok(disk) = stand.disk() else { return Ok(()) };
    match std::fs::remove_file(disk.folder.join("filler")) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).context("removing what fills the disk"),
        _ => Ok(()),
    }
}

/// Whether a statement that needs space fails for want of it.
async fn is_refused(stand: &Stand) -> bool {
    let Ok(mut connection) = stand.database("postgres").await else { return false };
    let grown = sqlx::query(GROW).execute(&mut connection).await;
    let refused = grown.err().and_then(|error| error.as_database_error()?.code().map(|code| code == DISK_FULL));
    let _ = connection.close().await;
    refused.unwrap_or(false)
}

/// How often its log says so; it is on another disk.
fn log_says(stand: &Stand) -> usize {
    let log = stand.component("postgres").ok().and_then(|one| std::fs::read(one.log).ok()).unwrap_or_default();
    String::from_utf8_lossy(&log).matches("No space left on device").count()
}
