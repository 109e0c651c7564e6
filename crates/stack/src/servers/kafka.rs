//! The broker: one KRaft node that is broker and controller.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nix::sys::signal::Signal;

use super::{java, kafka_probe};
use crate::Error;
use crate::fetch::{Files, run};
use crate::launch::Launch;
use crate::layout::{DataDir, create_dir, write_atomically};
use crate::links::Links;
use crate::ports::Reservation;
use crate::spawn::Program;

const HEAP_MB: u32 = 512;

/// The broker of one data directory.
pub struct Kafka {
    folder: PathBuf,
    log: PathBuf,
    files: Files,
    port: Reservation,
    /// Only the node itself uses it.
    controller_port: Reservation,
    links: Links,
}

impl Kafka {
    /// A broker that listens on `port`, and on those of `links`.
    pub fn new(data: &DataDir, files: &Files, port: Reservation, links: Links) -> Result<Self, Error> {
        let controller_port = Reservation::free()?;
        Ok(Self { folder: data.kafka(), log: data.log("kafka"), files: files.clone(), port, controller_port, links })
    }

    fn configuration(&self) -> PathBuf {
        self.folder.join("server.properties")
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn properties(&self) -> String {
        let (port, controller_port) = (self.port.port(), self.controller_port.port());
        let data = self.data();
        let data = data.display();
        let (mut listeners, mut advertised, mut protocols) = (String::new(), String::new(), String::new());
        for (name, listener) in self.links.listeners() {
            // Writing to a string cannot fail.
            let _ = write!(listeners, ",{name}://127.0.0.1:{}", listener.port);
            let _ = write!(advertised, ",{name}://127.0.0.1:{}", listener.advertised);
            let _ = write!(protocols, ",{name}:PLAINTEXT");
        }
        format!(
            "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}{listeners}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}{advertised}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}
inter.broker.listener.name=PLAINTEXT
log.dirs={data}

# Topics are declared in one file: a misspelt name must fail, not make a topic.
auto.create.topics.enable=false
# One broker keeps one copy of everything.
default.replication.factor=1
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
# Committed offsets outlive every other retention: an expired offset would start a group anew.
offsets.retention.minutes=43200

# Small, for two cores and little memory.
num.network.threads=1
num.io.threads=2
background.threads=2
num.recovery.threads.per.data.dir=2
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=1
share.coordinator.state.topic.num.partitions=1
log.cleaner.dedupe.buffer.size=4194304
log.cleaner.io.buffer.size=131072
log.index.size.max.bytes=2097152
# Deleted topics (tests make and delete many) give their files back at once, not after a minute.
log.segment.delete.delay.ms=1000

# After a kill the node comes back at once, and is let in when its own old session has ended.
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000

# The members of a group start one by one here, and nobody waits for the others.
group.initial.rebalance.delay.ms=0
"
        )
    }

    /// Gives an empty data directory its identity. Does nothing to one that has it.
    async fn format(&self) -> Result<(), Error> {
        if self.data().join("meta.properties").is_file() {
            return Ok(());
        }
        let cluster = URL_SAFE_NO_PAD.encode(uuid::Uuid::new_v4().as_bytes());
        let program = java::program(&self.files, &self.folder, &self.log, HEAP_MB, "kafka.tools.StorageTool");
        let mut command = tokio::process::Command::new(&program.path);
        command.args(&program.arguments).args(["format", "--ignore-formatted", "--cluster-id", &cluster, "--config"]);
        command.arg(self.configuration());
        run("formatting the broker's data directory", command).await
    }
}

#[async_trait]
impl Launch for Kafka {
    fn name(&self) -> String {
        "kafka".into()
    }

    async fn prepare(&self) -> Result<(), Error> {
        create_dir(&self.folder)?;
        java::write_logging(&self.folder)?;
        write_atomically(&self.configuration(), self.properties().as_bytes())?;
        self.format().await?;
        self.port.check()
    }

    fn program(&self) -> Result<Program, Error> {
        let program = java::program(&self.files, &self.folder, &self.log, HEAP_MB, "kafka.Kafka");
        Ok(program.argument(self.configuration()))
    }

    fn waits_for(&self) -> String {
        format!("an answer of the broker at 127.0.0.1:{}", self.port.port())
    }

    async fn probe(&self) -> Result<(), String> {
        kafka_probe::answers(self.port.port()).await.map_err(|error| error.to_string())
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(90)
    }

    fn stop_signal(&self) -> (Signal, Duration) {
        (Signal::SIGTERM, Duration::from_secs(30))
    }

    fn url(&self) -> String {
        format!("kafka://127.0.0.1:{}", self.port.port())
    }

    fn log(&self) -> &Path {
        &self.log
    }
}
