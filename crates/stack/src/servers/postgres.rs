//! PostgreSQL 18, one cluster for all databases.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use nix::sys::signal::Signal;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection};

use super::postgres_files::PostgresFiles;
use crate::Error;
use crate::fetch::{Files, run};
use crate::launch::Launch;
use crate::layout::DataDir;
use crate::ports::Reservation;
use crate::process::{self, ProcessId};
use crate::spawn::Program;
use crate::user::User;

/// Settings that differ from the defaults, each for a reason.
const SETTINGS: &[(&str, &str)] = &[
    ("listen_addresses", "127.0.0.1"),
    ("unix_socket_directories", ""), // nobody uses them, and their paths are limited to 107 bytes
    ("timezone", "UTC"),
    ("max_connections", "300"), // the pools of all services, several replicas, tests side by side
    // Debezium decodes from the log. Tests make a slot each.
    ("wal_level", "logical"),
    ("max_replication_slots", "100"),
    ("max_wal_senders", "100"),
    // A slot that nobody reads must not fill the disk; it is lost loudly instead.
    ("max_slot_wal_keep_size", "8GB"),
    // Checkpoints that come often write whole pages again and again: eight times the log under load.
    ("max_wal_size", "4GB"),
    ("checkpoint_timeout", "15min"),
    ("wal_compression", "pglz"),
    // After a crash, one flush of the file system instead of one for each of thousands of files.
    ("recovery_init_sync_method", "syncfs"),
    ("shared_buffers", "256MB"),
    // Statements here are short: compiling them costs more than running them.
    ("jit", "off"),
    // A client that vanished in mid-transaction must not hold its locks for hours.
    ("tcp_keepalives_idle", "30"),
    ("tcp_keepalives_interval", "5"),
    ("log_line_prefix", "%m [%p] %d "),
    ("log_checkpoints", "off"),
];

/// The PostgreSQL cluster of one data directory.
pub struct Postgres {
    data_dir: DataDir,
    files: Files,
    places: PostgresFiles,
    log: PathBuf,
    port: Reservation,
}

impl Postgres {
    /// A cluster that listens on `port`.
    pub fn new(data: &DataDir, files: &Files, port: Reservation) -> Result<Self, Error> {
        let places = PostgresFiles::decide(data, files)?;
        Ok(Self { data_dir: data.clone(), files: files.clone(), places, log: data.log("postgres"), port })
    }

    fn binary(&self, name: &str) -> PathBuf {
        self.places.home.join("bin").join(name)
    }

    /// Makes the cluster if there is none. It appears by a rename: an interrupted try leaves none.
    async fn initialise(&self) -> Result<(), Error> {
        let data = &self.places.data;
        if data.join("PG_VERSION").is_file() {
            return Ok(());
        }
        let unfinished = self.empty_cluster().await?;
        let mut command = tokio::process::Command::new("setpriv");
        if let Some(user) = &self.places.user {
            command.args(user.setpriv_arguments());
        }
        command.arg("--").arg(self.binary("initdb")).arg("--pgdata").arg(&unfinished);
        // Everything listens on loopback and trusts it. The built-in locale needs nothing of the system.
        command.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-instructions"]);
        command.args(["--locale-provider=builtin", "--locale=C.UTF-8"]).current_dir("/");
        run("making the PostgreSQL cluster", command).await?;
        std::fs::rename(&unfinished, data).map_err(Error::io(format!("finishing {}", data.display())))
    }

    /// An empty folder beside the cluster's that can take its place by a rename. What an interrupted try left there goes.
    pub(crate) async fn empty_cluster(&self) -> Result<PathBuf, Error> {
        self.places.place(&self.data_dir, &self.files).await?;
        let unfinished = self.places.data.with_added_extension("unfinished");
        if unfinished.exists() {
            std::fs::remove_dir_all(&unfinished).map_err(Error::io(format!("removing {}", unfinished.display())))?;
        }
        self.places.create_private(&unfinished)?;
        Ok(unfinished)
    }

    /// The cluster's folder.
    pub fn cluster(&self) -> &Path {
        &self.places.data
    }

    /// Who the cluster's files belong to; `None` for ourselves.
    pub(crate) fn user(&self) -> Option<&User> {
        self.places.user.as_ref()
    }

    /// The first part of the programs' version.
    pub(crate) async fn major(&self) -> Result<String, Error> {
        self.places.place(&self.data_dir, &self.files).await?;
        let program = self.binary("postgres");
        let mut command = tokio::process::Command::new(&program);
        command.arg("--version").current_dir("/").kill_on_drop(true);
        let output =
            command.output().await.map_err(Error::io(format!("asking {} for its version", program.display())))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
        let major = version.and_then(|version| version.split(|c: char| !c.is_ascii_digit()).next());
        major.map(str::to_owned).ok_or_else(|| Error::Other(format!("{} tells no version: {text}", program.display())))
    }

    /// Waits for what a killed postmaster left behind: its backends end by themselves, but hold the shared
    /// memory until they have. Then removes its lock file, whose number another process may carry by now.
    async fn clear_remains(&self) -> Result<(), Error> {
        let data = &self.places.data;
        let real = data.canonicalize().map_err(Error::io(format!("resolving {}", data.display())))?;
        let remains: Vec<ProcessId> = process::working_in(&real).into_iter().filter_map(ProcessId::of).collect();
        for (signal, limit) in [(None, 5), (Some(Signal::SIGQUIT), 5), (Some(Signal::SIGKILL), 5)] {
            for process in &remains {
                if let Some(signal) = signal {
                    // Fails only if it has just ended.
                    let _ = process.signal(signal);
                }
            }
            let mut all_gone = true;
            for process in &remains {
                all_gone &= process.gone_within(Duration::from_secs(limit)).await;
            }
            if all_gone {
                break;
            }
        }
        match std::fs::remove_file(data.join("postmaster.pid")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("removing the stale postmaster.pid")(error))
            }
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Launch for Postgres {
    fn name(&self) -> String {
        "postgres".into()
    }

    async fn prepare(&self) -> Result<(), Error> {
        self.places.place(&self.data_dir, &self.files).await?;
        self.initialise().await?;
        self.clear_remains().await?;
        self.port.check()
    }

    fn program(&self) -> Result<Program, Error> {
        let mut program = Program::new(self.binary("postgres"), &self.log).argument("-D").argument(&self.places.data);
        program.user.clone_from(&self.places.user);
        program = program.argument("-c").argument(format!("port={}", self.port.port()));
        for (name, value) in SETTINGS {
            program = program.argument("-c").argument(format!("{name}={value}"));
        }
        Ok(program)
    }

    fn waits_for(&self) -> String {
        format!("a connection to PostgreSQL at 127.0.0.1:{}", self.port.port())
    }

    async fn probe(&self) -> Result<(), String> {
        let options =
            PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(self.port.port()).username("postgres");
        let connection = options.database("postgres").connect().await.map_err(|error| error.to_string())?;
        connection.close().await.map_err(|error| error.to_string())
    }

    fn patience(&self) -> Duration {
        // Recovery after a crash reads up to max_wal_size.
        Duration::from_secs(120)
    }

    fn stop_signal(&self) -> (Signal, Duration) {
        // "Fast": ends the sessions, writes a checkpoint.
        (Signal::SIGINT, Duration::from_secs(40))
    }

    fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}", self.port.port())
    }

    fn log(&self) -> &Path {
        &self.log
    }
}
