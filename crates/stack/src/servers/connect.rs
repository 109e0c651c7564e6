//! Kafka Connect with the Debezium connector: one distributed worker.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use nix::sys::signal::Signal;

use super::java;
use crate::Error;
use crate::fetch::Files;
use crate::launch::{self, Launch};
use crate::layout::{DataDir, create_dir, write_atomically};
use crate::ports::Reservation;
use crate::spawn::Program;

const HEAP_MB: u32 = 256;

/// The Connect worker of one data directory.
pub struct Connect {
    folder: PathBuf,
    log: PathBuf,
    files: Files,
    port: Reservation,
    kafka_port: u16,
    http: reqwest::Client,
}

impl Connect {
    /// A worker whose REST interface listens on `port`, of the broker that it reaches on `kafka_port`.
    pub fn new(data: &DataDir, files: &Files, port: Reservation, kafka_port: u16) -> Self {
        let http = reqwest::Client::new();
        Self { folder: data.connect(), log: data.log("connect"), files: files.clone(), port, kafka_port, http }
    }

    fn configuration(&self) -> PathBuf {
        self.folder.join("worker.properties")
    }

    fn properties(&self) -> String {
        let (port, kafka_port) = (self.port.port(), self.kafka_port);
        let plugins = self.files.connect_plugins();
        let plugins = plugins.display();
        format!(
            "bootstrap.servers=127.0.0.1:{kafka_port}
group.id=connect
listeners=http://127.0.0.1:{port}
rest.advertised.host.name=127.0.0.1
rest.advertised.port={port}

plugin.path={plugins}
# Debezium names its classes in service files; looking through every jar instead takes seconds.
plugin.discovery=service_load
key.converter=org.apache.kafka.connect.storage.StringConverter
value.converter=org.apache.kafka.connect.json.JsonConverter
value.converter.schemas.enable=false

# Made by Connect itself, compacted.
config.storage.topic=connect.configs
config.storage.replication.factor=1
offset.storage.topic=connect.offsets
offset.storage.replication.factor=1
offset.storage.partitions=1
status.storage.topic=connect.status
status.storage.replication.factor=1
status.storage.partitions=1

# What a crash repeats, and how far PostgreSQL's slot lags, is at most this long.
offset.flush.interval.ms=1000
# A worker that was killed is back at once; the default waits five minutes for it.
scheduled.rebalance.max.delay.ms=0
session.timeout.ms=6000
heartbeat.interval.ms=2000
task.shutdown.graceful.timeout.ms=5000
# A connector may tune its producer, and nothing else of any client.
connector.client.config.override.policy=Allowlist
connector.client.config.override.allowlist=acks,batch.size,buffer.memory,compression.type,enable.idempotence,linger.ms,max.in.flight.requests.per.connection,max.request.size
"
        )
    }
}

#[async_trait]
impl Launch for Connect {
    fn name(&self) -> String {
        "connect".into()
    }

    async fn prepare(&self) -> Result<(), Error> {
        create_dir(&self.folder)?;
        java::write_logging(&self.folder)?;
        write_atomically(&self.configuration(), self.properties().as_bytes())?;
        self.port.check()
    }

    fn program(&self) -> Result<Program, Error> {
        let main_class = "org.apache.kafka.connect.cli.ConnectDistributed";
        let program = java::program(&self.files, &self.folder, &self.log, HEAP_MB, main_class);
        Ok(program.argument(self.configuration()))
    }

    fn waits_for(&self) -> String {
        format!("an answer of GET {}/connectors", self.url())
    }

    async fn probe(&self) -> Result<(), String> {
        // `/` answers early; the list of connectors only when the worker has joined its group.
        launch::ask(self.http.get(format!("{}/connectors", self.url())).timeout(Duration::from_secs(3))).await
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(120)
    }

    fn stop_signal(&self) -> (Signal, Duration) {
        (Signal::SIGTERM, Duration::from_secs(20))
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port.port())
    }

    fn log(&self) -> &Path {
        &self.log
    }
}
