//! Our own services as components.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use nix::sys::signal::Signal;

use super::Report;
use super::state::{ConsumerWait, label};
use crate::launch::{self, Launch};
use crate::layout::Repository;
use crate::servers::Endpoints;
use crate::spawn::Program;
use crate::{DataDir, Error, ports};

/// A service of the platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceSpec {
    /// Name of the component and of the program.
    pub name: &'static str,
    /// The port that users know.
    pub port: u16,
    /// Its database, which is also its role.
    pub database: &'static str,
}

/// Every service that a stack runs.
pub const SERVICES: &[ServiceSpec] = &[
    ServiceSpec { name: "order-api", port: 8081, database: "orders" },
    ServiceSpec { name: "orchestrator", port: 8082, database: "orchestrator" },
    ServiceSpec { name: "payment-svc", port: 8084, database: "payment" },
    ServiceSpec { name: "inventory-svc", port: 8085, database: "inventory" },
    ServiceSpec { name: "shipping-svc", port: 8086, database: "shipping" },
    ServiceSpec { name: "notification-svc", port: 8087, database: "notification" },
    ServiceSpec { name: "dlq-admin", port: 8088, database: "dlq_admin" },
];

/// What all services of one stack share.
#[derive(Clone)]
pub(super) struct Surroundings {
    pub(super) data: DataDir,
    pub(super) repository: Repository,
    pub(super) endpoints: Endpoints,
    /// The folder of the services' programs.
    pub(super) programs: PathBuf,
    /// What [`super::Options::environment`] says.
    pub(super) environment: Vec<(String, String)>,
    pub(super) report: Report,
}

/// One instance of a service.
pub(super) struct Service {
    spec: ServiceSpec,
    instance: u32,
    around: Surroundings,
    log: PathBuf,
    /// The port in use, or to be tried first; 0 for any free one.
    port: AtomicU16,
    http: reqwest::Client,
    waiting: Mutex<Vec<ConsumerWait>>,
}

/// The waits that an answer of `/readyz?verbose` names.
fn waits_in(answer: &serde_json::Value) -> Vec<ConsumerWait> {
    let dependencies = answer["dependencies"].as_array().map_or(&[][..], Vec::as_slice);
    let wait = |dependency: &serde_json::Value| {
        let waiting = dependency.get("waiting")?;
        let consumer = dependency["name"].as_str()?.trim_start_matches("consumer ").to_owned();
        let since = waiting["since"].as_str()?.parse().ok()?;
        let (cause, lag) = (waiting["cause"].as_str()?.to_owned(), waiting["lag"].as_u64());
        Some(ConsumerWait { consumer, since, cause, lag })
    };
    dependencies.iter().filter_map(wait).collect()
}

impl Service {
    pub(super) fn new(spec: ServiceSpec, instance: u32, around: &Surroundings) -> Self {
        let log = around.data.log(&label(spec.name, instance).replace('/', "-"));
        let port = AtomicU16::new(if instance == 1 { spec.port } else { 0 });
        Self {
            spec,
            instance,
            around: around.clone(),
            log,
            port,
            http: reqwest::Client::new(),
            waiting: Mutex::default(),
        }
    }

    fn port_file(&self) -> PathBuf {
        self.port_file_of(self.spec.name, self.instance)
    }

    fn port_file_of(&self, service: &str, instance: u32) -> PathBuf {
        self.around.data.run().join(format!("{service}-{instance}.port"))
    }

    /// Where the service said that it listens.
    fn address(&self) -> Option<SocketAddr> {
        std::fs::read_to_string(self.port_file()).ok()?.trim().parse().ok()
    }
}

#[async_trait]
impl Launch for Service {
    fn name(&self) -> String {
        label(self.spec.name, self.instance)
    }

    async fn prepare(&self) -> Result<(), Error> {
        match std::fs::remove_file(self.port_file()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io(format!("removing {}", self.port_file().display()))(error));
            }
            _ => {}
        }
        let wanted = self.port.load(Ordering::Relaxed);
        if wanted != 0 && !ports::is_free(wanted) {
            self.around.report.say(&format!("{}: port {wanted} is taken, it gets a free one", self.name()));
            self.port.store(0, Ordering::Relaxed);
        }
        Ok(())
    }

    fn program(&self) -> Result<Program, Error> {
        let path = self.around.programs.join(self.spec.name);
        if !path.is_file() {
            return Err(Error::Other(format!(
                "{} is not built: run ./symphony up, or cargo build --release",
                path.display()
            )));
        }
        let endpoints = &self.around.endpoints;
        let mut program = Program::new(path, &self.log);
        for (name, value) in &self.around.environment {
            program = program.variable(name, value);
        }
        Ok(program
            .variable("HTTP_HOST", "127.0.0.1")
            .variable("HTTP_PORT", self.port.load(Ordering::Relaxed).to_string())
            .variable("HTTP_PORT_FILE", self.port_file())
            .variable("DATABASE_URL", endpoints.database_for(self.spec.name, self.spec.database, self.spec.database))
            .variable("KAFKA_BOOTSTRAP_SERVERS", endpoints.kafka_for_services())
            .variable("KAFKA_TOPIC_PREFIX", "")
            .variable("SAGAS_DIR", self.around.repository.sagas())
            // Its port may differ from the one that users know, and change while the stack runs.
            .variable("ORCHESTRATOR_ADDRESS_FILE", self.port_file_of("orchestrator", 1))
            .variable("SERVICE_INSTANCE", format!("{}-{}", self.spec.name, self.instance))
            .variable("LOG_FORMAT", "json"))
    }

    fn waits_for(&self) -> String {
        match self.address() {
            Some(address) => format!("an answer of GET http://{address}/readyz"),
            None => "its HTTP port to open".into(),
        }
    }

    async fn probe(&self) -> Result<(), String> {
        let address = self.address().ok_or("it has not said on which port it listens")?;
        let request = self.http.get(format!("http://{address}/readyz?verbose")).timeout(Duration::from_secs(2));
        let (ready, answer) = launch::ask_and_read(request).await;
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = waits_in(&answer);
        ready?;
        self.port.store(address.port(), Ordering::Relaxed);
        Ok(())
    }

    fn waiting(&self) -> Vec<ConsumerWait> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(60)
    }

    fn stop_signal(&self) -> (Signal, Duration) {
        // The service drains for 25 seconds at most.
        (Signal::SIGTERM, Duration::from_secs(30))
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port.load(Ordering::Relaxed))
    }

    fn log(&self) -> &Path {
        &self.log
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consumer_that_waits_is_read_from_what_the_service_says_of_itself() {
        let answer = serde_json::json!({ "state": "unready", "dependencies": [
            { "name": "database", "required": true, "state": "down", "detail": "no connection" },
            { "name": "consumer payment-svc", "required": true, "state": "down", "detail": "waiting since then",
              "waiting": { "cause": "no connection", "kind": "database", "since": "2026-11-21T16:00:00Z", "attempts": 7,
                           "lag": 120 } },
        ]});
        let since = "2026-11-21T16:00:00Z".parse().expect("a time");
        let wait =
            ConsumerWait { consumer: "payment-svc".into(), since, cause: "no connection".into(), lag: Some(120) };
        assert_eq!(waits_in(&answer), [wait]);
        assert!(waits_in(&serde_json::Value::Null).is_empty());
    }
}
