//! Taking a backup of a running cluster.
//!
//! Between `pg_backup_start` and `pg_backup_stop` the files may be copied while they change: whatever is torn or missing
//! in them is in the log from the start to the stop, which is copied too. Replaying it makes the cluster as it was at the
//! stop, all databases at once. A temporary slot keeps that log; it goes with the session, as does the backup itself when
//! this process dies.

use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{ConnectOptions, Connection, Row};

use super::copy::{blocking, flush, store};
use super::files;
use super::manifest::{Manifest, cluster};
use super::unfinished::Unfinished;
use crate::Error;

const WHERE: &str = "SELECT current_setting('data_directory'), current_setting('server_version')";
const KEEP_LOG: &str = "SELECT pg_create_physical_replication_slot($1, true, true)";
/// With a checkpoint at once: a spread one takes minutes.
const START: &str = "SELECT lsn::text, pg_walfile_name(lsn) FROM pg_backup_start('symphony backup', true) AS lsn";
/// Without waiting for an archive, as there is none: we copy the log.
const STOP: &str = "\
SELECT lsn::text, pg_walfile_name(lsn), labelfile, coalesce(spcmapfile, ''), clock_timestamp() FROM pg_backup_stop(false)";
const LABEL: &str = "backup_label";

/// Copies the cluster at `address` (`host:port`, whose superuser needs no password and whose files are on this machine)
/// into the new folder `target`, which appears when the backup is whole.
///
/// # Errors
/// Also when `target` is there already.
pub async fn take(address: &str, target: &Path) -> Result<Manifest, Error> {
    let target = std::path::absolute(target).map_err(Error::io(format!("resolving {}", target.display())))?;
    if target.exists() {
        return Err(Error::Other(format!("{} is there already: a backup overwrites nothing", target.display())));
    }
    let unfinished = Unfinished::make(&target)?;
    let into = cluster(unfinished.folder());

    let mut session = Session::open(address).await?;
    let (source, server_version) = session.cluster().await?;
    let start = session.start().await?;
    let (from, to) = (source.clone(), into.clone());
    let mut copied = blocking(move || files::copy_cluster(&from, &to)).await?;
    let stop = session.stop().await?;
    let (wal, to) = (source.join("pg_wal"), into.clone());
    let (first, last) = (start.segment, stop.segment);
    copied.files.extend(blocking(move || files::copy_log(&wal, &to, &first, &last)).await?);
    // Only now: the slot goes with it.
    session.close().await?;

    blocking(move || {
        copied.files.push(store(&into, Path::new(LABEL), stop.label.as_bytes())?);
        let manifest = Manifest {
            format: Manifest::FORMAT,
            taken_at: stop.at,
            stack_version: env!("CARGO_PKG_VERSION").into(),
            server_version,
            start_lsn: start.lsn,
            stop_lsn: stop.lsn,
            bytes: copied.files.iter().map(|entry| entry.size).sum(),
            folders: copied.folders,
            files: copied.files,
        };
        manifest.write(unfinished.folder())?;
        flush(unfinished.folder())?;
        unfinished.finish(&target)?;
        Ok(manifest)
    })
    .await
}

/// The one session that a backup must begin and end in.
struct Session(PgConnection);

/// Where the log to replay begins.
struct Start {
    lsn: String,
    segment: String,
}

/// Where it ends.
struct Stop {
    lsn: String,
    segment: String,
    /// The file that tells the server that it starts from a backup.
    label: String,
    at: DateTime<Utc>,
}

fn failed(source: sqlx::Error) -> Error {
    Error::database("taking a backup")(source)
}

impl Session {
    async fn open(address: &str) -> Result<Self, Error> {
        let options: PgConnectOptions = format!("postgres://postgres@{address}/postgres").parse().map_err(failed)?;
        options.application_name("symphony backup").connect().await.map(Self).map_err(failed)
    }

    async fn row(&mut self, query: &'static str) -> Result<PgRow, Error> {
        sqlx::query(query).fetch_one(&mut self.0).await.map_err(failed)
    }

    /// The cluster's folder, and the server's version.
    async fn cluster(&mut self) -> Result<(PathBuf, String), Error> {
        let row = self.row(WHERE).await?;
        let folder: String = row.try_get(0).map_err(failed)?;
        Ok((folder.into(), row.try_get(1).map_err(failed)?))
    }

    async fn start(&mut self) -> Result<Start, Error> {
        let slot = format!("symphony_backup_{}", std::process::id());
        sqlx::query(KEEP_LOG).bind(slot).execute(&mut self.0).await.map_err(failed)?;
        let row = self.row(START).await?;
        Ok(Start { lsn: row.try_get(0).map_err(failed)?, segment: row.try_get(1).map_err(failed)? })
    }

    async fn stop(&mut self) -> Result<Stop, Error> {
        let row = self.row(STOP).await?;
        if !row.try_get::<String, _>(3).map_err(failed)?.is_empty() {
            return Err(Error::Other("the cluster has tablespaces outside its folder: they are not copied".into()));
        }
        Ok(Stop {
            lsn: row.try_get(0).map_err(failed)?,
            segment: row.try_get(1).map_err(failed)?,
            label: row.try_get(2).map_err(failed)?,
            at: row.try_get(4).map_err(failed)?,
        })
    }

    async fn close(self) -> Result<(), Error> {
        self.0.close().await.map_err(failed)
    }
}
