//! The outbox connector in Kafka Connect, by its REST interface.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Names;
use crate::Error;
use crate::layout::Repository;
use crate::links::CONNECT;
use crate::servers::Endpoints;

/// Connect answers 409 while it rebalances; one that goes on for longer is an error.
const PATIENCE: Duration = Duration::from_secs(60);

/// The connector of `debezium/orders-outbox.json` under certain names.
#[derive(Clone)]
pub struct OutboxConnector {
    name: String,
    config: BTreeMap<String, String>,
    base: String,
    http: reqwest::Client,
}

/// The state of the connector and its task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Connect does not know the connector.
    Absent,
    /// Connector and task run.
    Running,
    /// One of them has failed; nothing restarts it by itself.
    Failed {
        /// The first line of the reason.
        reason: String,
    },
    /// Neither of these yet; Connect's own word for it.
    Other(String),
}

#[derive(Deserialize)]
struct Definition {
    name: String,
    config: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct StatusAnswer {
    connector: Part,
    tasks: Vec<Part>,
}

#[derive(Deserialize)]
struct Part {
    state: String,
    #[serde(default)]
    trace: Option<String>,
}

impl OutboxConnector {
    /// Reads the definition and fills in the names and addresses.
    pub fn load(repository: &Repository, endpoints: &Endpoints, names: &Names) -> Result<Self, Error> {
        let file = repository.outbox_connector();
        let text = std::fs::read_to_string(&file).map_err(Error::io(format!("reading {}", file.display())))?;
        let definition = fill(&text, endpoints, names)
            .map_err(|error| Error::File { file: file.display().to_string(), detail: error.to_string() })?;
        Ok(Self {
            name: definition.name,
            config: definition.config,
            base: endpoints.connect(),
            http: reqwest::Client::new(),
        })
    }

    /// Brings Connect to this definition. `forget_offsets` when the slot is a new one: offsets of another slot
    /// would make the connector fail, and rightly.
    pub async fn apply(&self, forget_offsets: bool) -> Result<(), Error> {
        if forget_offsets {
            self.stop().await?;
            self.forget_offsets().await?;
        }
        self.request(Method::PUT, "/config", Some(json!(self.config))).await?;
        // Also one that somebody has paused, or a repair that was cut off has stopped.
        self.resume().await
    }

    /// Makes Connect forget how far the connector has read; it must be stopped.
    pub async fn forget_offsets(&self) -> Result<(), Error> {
        self.request(Method::DELETE, "/offsets", None).await
    }

    /// Lets it go on after [`Self::stop`], or after somebody has paused it.
    pub async fn resume(&self) -> Result<(), Error> {
        self.request(Method::PUT, "/resume", None).await
    }

    /// The settings whose values in Connect differ from the definition's; none when Connect does not know it.
    pub async fn drift(&self) -> Result<Vec<String>, Error> {
        let answer = self.send(Method::GET, "/config", None).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(Vec::new());
        }
        if !answer.status().is_success() {
            return Err(self.error("reading its settings", answer.status().to_string()));
        }
        let set: BTreeMap<String, String> =
            answer.json().await.map_err(|source| self.unreachable("/config", source))?;
        Ok(self.differing(&set))
    }

    fn differing(&self, set: &BTreeMap<String, String>) -> Vec<String> {
        // Connect adds the name.
        let known =
            self.config.keys().chain(set.keys().filter(|key| *key != "name" && !self.config.contains_key(*key)));
        known.filter(|key| self.config.get(*key) != set.get(*key)).cloned().collect()
    }

    /// Waits until connector and task run. One that failed is restarted: the reason may have been a dependency
    /// that was not up yet.
    pub async fn until_running(&self) -> Result<(), Error> {
        let started = Instant::now();
        let mut last_failure = None;
        loop {
            match self.status().await? {
                Status::Running => return Ok(()),
                Status::Failed { reason } if started.elapsed() < PATIENCE / 2 => {
                    last_failure = Some(reason);
                    self.restart().await?;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                status if started.elapsed() > PATIENCE => {
                    let seconds = PATIENCE.as_secs();
                    let failure = last_failure.map(|reason| format!("; last failure: {reason}")).unwrap_or_default();
                    let detail = format!("after {seconds} s it is {status:?}{failure}");
                    return Err(self.error("waiting for it to run", detail));
                }
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// What Connect says about it.
    pub async fn status(&self) -> Result<Status, Error> {
        let answer = self.send(Method::GET, "/status", None).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(Status::Absent);
        }
        if !answer.status().is_success() {
            return Ok(Status::Other(answer.status().to_string()));
        }
        let answer: StatusAnswer = answer.json().await.map_err(|source| self.unreachable("/status", source))?;
        Ok(answer.judge())
    }

    /// Restarts what has failed.
    pub async fn restart(&self) -> Result<(), Error> {
        self.request(Method::POST, "/restart?includeTasks=true&onlyFailed=true", None).await
    }

    /// Restarts connector and task whatever their state.
    pub async fn restart_all(&self) -> Result<(), Error> {
        self.request(Method::POST, "/restart?includeTasks=true&onlyFailed=false", None).await
    }

    /// Removes it from Connect; absent is no error.
    pub async fn delete(&self) -> Result<(), Error> {
        if self.status().await? == Status::Absent {
            return Ok(());
        }
        self.request(Method::DELETE, "", None).await
    }

    /// Makes it known to Connect and at rest, without a task. It stays so until [`Self::resume`].
    pub async fn stop(&self) -> Result<(), Error> {
        if self.status().await? == Status::Absent {
            let body = json!({"name": self.name, "config": self.config, "initial_state": "STOPPED"});
            let answer = self.http.post(format!("{}/connectors", self.base)).json(&body).send().await;
            let answer = answer.map_err(|source| self.unreachable("", source))?;
            return self.accepted("creating it", answer).await;
        }
        self.request(Method::PUT, "/stop", None).await?;
        let started = Instant::now();
        while self.status().await? != Status::Other("STOPPED".into()) {
            if started.elapsed() > PATIENCE {
                return Err(self.error("stopping it", "it goes on".into()));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// Sends until Connect is not in the middle of a rebalance.
    async fn request(&self, method: Method, path: &str, body: Option<Value>) -> Result<(), Error> {
        let started = Instant::now();
        loop {
            let answer = self.send(method.clone(), path, body.as_ref()).await?;
            let wait = [StatusCode::CONFLICT, StatusCode::SERVICE_UNAVAILABLE].contains(&answer.status());
            if !wait || started.elapsed() > PATIENCE {
                return self.accepted(&format!("{method} {path}"), answer).await;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<reqwest::Response, Error> {
        let mut request = self.http.request(method, format!("{}/connectors/{}{path}", self.base, self.name));
        if let Some(body) = body {
            request = request.json(body);
        }
        request.timeout(Duration::from_secs(30)).send().await.map_err(|source| self.unreachable(path, source))
    }

    async fn accepted(&self, doing: &str, answer: reqwest::Response) -> Result<(), Error> {
        if answer.status().is_success() {
            return Ok(());
        }
        let status = answer.status();
        let text = answer.text().await.unwrap_or_default();
        Err(self.error(doing, format!("{status} {text}")))
    }

    fn error(&self, doing: &str, detail: String) -> Error {
        Error::Connector { doing: format!("connector {}: {doing}", self.name), detail }
    }

    fn unreachable(&self, path: &str, source: reqwest::Error) -> Error {
        Error::ConnectUnreachable { doing: format!("asking Connect for connector {}{path}", self.name), source }
    }
}

impl StatusAnswer {
    fn judge(&self) -> Status {
        let parts = || std::iter::once(&self.connector).chain(&self.tasks);
        if let Some(failed) = parts().find(|part| part.state == "FAILED") {
            let reason = failed.trace.as_deref().and_then(root_cause).unwrap_or("no reason given").to_owned();
            return Status::Failed { reason };
        }
        if !self.tasks.is_empty() && parts().all(|part| part.state == "RUNNING") {
            return Status::Running;
        }
        let unready = parts().find(|part| part.state != "RUNNING");
        Status::Other(unready.map_or_else(|| "without a task".into(), |part| part.state.clone()))
    }
}

/// The line of a Java stack trace that says most: the innermost cause.
fn root_cause(trace: &str) -> Option<&str> {
    let cause = trace.lines().filter_map(|line| line.strip_prefix("Caused by: ")).next_back();
    cause.or_else(|| trace.lines().next())
}

/// Fills in our placeholders. `${routedByValue}` belongs to Debezium and stays.
fn fill(text: &str, endpoints: &Endpoints, names: &Names) -> Result<Definition, serde_json::Error> {
    let values = [
        ("CONNECTOR_NAME", names.connector.clone()),
        ("DATABASE_HOST", "127.0.0.1".into()),
        ("DATABASE_PORT", endpoints.postgres_port_for(CONNECT).to_string()),
        ("DATABASE_USER", "debezium".into()),
        ("DATABASE_PASSWORD", String::new()),
        ("DATABASE_NAME", names.orders_database()),
        ("SLOT_NAME", names.slot.clone()),
        ("TOPIC_PREFIX", names.topic_prefix.clone()),
    ];
    let filled =
        values.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("${{{name}}}"), value));
    serde_json::from_str(&filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::Ports;

    #[test]
    fn every_placeholder_is_filled_but_debeziums_own() {
        let text = std::fs::read_to_string(Repository::find().unwrap().outbox_connector()).unwrap();
        let endpoints = Endpoints::straight(Ports::DEFAULT);
        let filled = fill(&text, &endpoints, &Names::prefixed("t1_")).unwrap();
        let open: Vec<_> = filled.config.iter().filter(|(_, value)| value.contains("${")).collect();
        assert_eq!(filled.name, "t1_orders-outbox");
        assert_eq!(open.len(), 1, "{open:?}");
        assert_eq!(open[0].1, "t1_${routedByValue}");
    }

    #[test]
    fn a_setting_that_is_changed_missing_or_too_much_is_a_drift() {
        let endpoints = Endpoints::straight(Ports::DEFAULT);
        let repository = Repository::find().unwrap();
        let connector = OutboxConnector::load(&repository, &endpoints, &Names::default()).unwrap();
        let mut set = connector.config.clone();
        set.insert("name".into(), "orders-outbox".into());
        assert_eq!(connector.differing(&set), Vec::<String>::new());
        set.insert("slot.name".into(), "another".into());
        set.remove("poll.interval.ms");
        set.insert("snapshot.mode.custom".into(), "x".into());
        assert_eq!(connector.differing(&set), ["poll.interval.ms", "slot.name", "snapshot.mode.custom"]);
    }

    #[test]
    fn one_failed_task_is_a_failed_connector_and_its_innermost_cause_is_shown() {
        let answer = r#"{"name":"x","connector":{"state":"RUNNING","worker_id":"w"},"tasks":[{"id":0,"state":"FAILED",
            "worker_id":"w","trace":"org.E: outer\n\tat a\nCaused by: org.F: middle\n\tat b\nCaused by: org.G: inner\n\tat c"}],
            "type":"source"}"#;
        let answer: StatusAnswer = serde_json::from_str(answer).unwrap();
        assert_eq!(answer.judge(), Status::Failed { reason: "org.G: inner".into() });
    }

    #[test]
    fn a_connector_without_a_task_does_not_run() {
        let answer: StatusAnswer = serde_json::from_str(r#"{"connector":{"state":"RUNNING"},"tasks":[]}"#).unwrap();
        assert_eq!(answer.judge(), Status::Other("without a task".into()));
    }
}
