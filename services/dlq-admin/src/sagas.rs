//! Messages that belong to a saga's course are worth nothing once the saga has ended.

use std::collections::HashSet;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use saga::Definition;
use serde_json::Value;
use service_kit::Problem;
use uuid::Uuid;

use crate::config::OrchestratorConfig;

/// The topics of sagas, and whom to ask where a saga is.
pub(crate) struct Sagas {
    /// Filled at the start.
    course: OnceLock<HashSet<String>>,
    orchestrator: OrchestratorConfig,
    client: reqwest::Client,
}

/// What the orchestrator says of a saga.
#[derive(Debug)]
pub(crate) enum Word {
    /// It goes on, is parked, or nobody knows it: its messages can be sent.
    Open,
    /// It has ended; this is the saga with its timeline.
    Ended(Value),
}

/// The orchestrator cannot be asked now.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the orchestrator cannot say where the saga is: {0}")]
pub(crate) struct Unreachable(String);

/// The files of `sagas.dir` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SagaFilesError {
    /// The folder or a file in it cannot be read.
    #[error("{0} cannot be read")]
    Unreadable(String, #[source] std::io::Error),
    /// A file is no definition.
    #[error("{0}")]
    Invalid(String),
}

impl Sagas {
    /// Knows no saga yet.
    pub(crate) fn new(orchestrator: OrchestratorConfig) -> Self {
        Sagas { course: OnceLock::new(), orchestrator, client: reqwest::Client::new() }
    }

    /// Knows the sagas in `folder` from now on.
    ///
    /// # Errors
    /// When a file cannot be read, or is no definition.
    pub(crate) fn load(&self, folder: &Path) -> Result<(), SagaFilesError> {
        let unreadable = |path: &Path| {
            let path = path.display().to_string();
            move |error| SagaFilesError::Unreadable(path, error)
        };
        let mut course = HashSet::new();
        for entry in std::fs::read_dir(folder).map_err(unreadable(folder))? {
            let path = entry.map_err(unreadable(folder))?.path();
            if !path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
                continue;
            }
            let text = std::fs::read_to_string(&path).map_err(unreadable(&path))?;
            let definition = Definition::parse(&text, &path.display().to_string()).map_err(|wrong| {
                let lines: Vec<String> = wrong.iter().map(ToString::to_string).collect();
                SagaFilesError::Invalid(lines.join("\n"))
            })?;
            course.extend(course_of(&definition));
        }
        // Only this sets it, and it runs once.
        let _ = self.course.set(course);
        Ok(())
    }

    /// Whether messages on `topic` matter to their saga only while it runs. Who listens to a saga's end does so after it.
    pub(crate) fn is_course(&self, topic: &str) -> bool {
        self.course.get().is_some_and(|course| course.contains(topic))
    }

    /// All such topics.
    pub(crate) fn course(&self) -> Vec<String> {
        self.course.get().into_iter().flatten().cloned().collect()
    }

    /// Asks where `saga` is.
    pub(crate) async fn ask(&self, saga: Uuid) -> Result<Word, Unreachable> {
        let failed = |error: reqwest::Error| Unreachable(error.without_url().to_string());
        let url = format!("{}/api/sagas/{saga}", self.url());
        let timeout = Duration::from_millis(self.orchestrator.timeout_ms);
        let answer = self.client.get(url).timeout(timeout).send().await.map_err(failed)?;
        match answer.status().as_u16() {
            200 => {
                let saga: Value = answer.json().await.map_err(failed)?;
                let ended = matches!(saga["state"].as_str(), Some("COMPLETED" | "COMPENSATED"));
                Ok(if ended { Word::Ended(saga) } else { Word::Open })
            }
            404 => Ok(Word::Open),
            status => Err(Unreachable(format!("it answered {status}"))),
        }
    }

    fn url(&self) -> String {
        let file = &self.orchestrator.address_file;
        let address = if file.as_os_str().is_empty() { None } else { std::fs::read_to_string(file).ok() };
        match address.as_deref().map(str::trim).filter(|address| !address.is_empty()) {
            Some(address) => format!("http://{address}"),
            None => self.orchestrator.url.trim_end_matches('/').to_owned(),
        }
    }
}

/// Trigger, commands, replies, undos and their answers; not the ends.
fn course_of(definition: &Definition) -> impl Iterator<Item = String> {
    let mut topics = vec![definition.trigger().topic.clone()];
    topics.extend(definition.reply_channels().map(|(topic, _)| topic.to_owned()));
    for step in definition.steps() {
        topics.push(step.command.topic.clone());
        topics.extend(step.undo().map(|undo| undo.command.topic.clone()));
    }
    topics.into_iter()
}

impl From<Unreachable> for Problem {
    fn from(error: Unreachable) -> Self {
        Problem::new(
            axum::http::StatusCode::SERVICE_UNAVAILABLE,
            "orchestrator-unavailable",
            "The orchestrator does not answer",
        )
        .detail(error.to_string())
        .retry_after(Duration::from_secs(2))
    }
}

/// The refusal to send a message of a saga that has ended, with the saga's timeline.
pub(crate) fn ended(letter: Uuid, saga: Value) -> Problem {
    let state = saga["state"].as_str().unwrap_or_default();
    let id = saga["sagaId"].as_str().unwrap_or_default();
    Problem::conflict("saga-ended", format!("saga {id} is {state}: none of its messages has an effect any more"))
        .instance(format!("/api/dlq/messages/{letter}"))
        .member("saga", saga)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_the_order_saga_is_its_course_but_the_ends() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sagas");
        let orchestrator = OrchestratorConfig { url: "http://nowhere".into(), address_file: "".into(), timeout_ms: 1 };
        let sagas = Sagas::new(orchestrator);
        sagas.load(&folder).expect("the definitions");
        for topic in ["order.created", "payment.requested", "payment.refunded", "shipping.cancel.requested"] {
            assert!(sagas.is_course(topic), "{topic}");
        }
        for topic in ["order.completed", "order.cancelled", "order.parked", "elsewhere"] {
            assert!(!sagas.is_course(topic), "{topic}");
        }
    }
}
