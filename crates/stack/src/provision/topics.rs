//! The topics of `kafka/topics.yaml`.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;

use messaging::admin::{TopicSpec, create_topics, list_topics};
use serde::Deserialize;
use tokio::net::TcpStream;

use crate::Error;
use crate::layout::Repository;
use crate::servers::Endpoints;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    sets: Vec<Set>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Set {
    #[serde(rename = "about")]
    _about: String,
    partitions: i32,
    #[serde(default)]
    config: BTreeMap<String, Value>,
    dead_letters: Option<DeadLetters>,
    topics: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeadLetters {
    #[serde(default)]
    config: BTreeMap<String, Value>,
}

/// A setting's value as people write it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Value {
    Number(i64),
    Text(String),
}

/// Makes the topics that are missing; those that exist stay as they are.
pub async fn ensure(endpoints: &Endpoints, repository: &Repository, prefix: &str) -> Result<(), Error> {
    let topics = declared(&repository.topics(), prefix)?;
    create_topics(&endpoints.kafka(), &topics).await.map_err(|error| Error::Topics(Box::new(error)))
}

/// Those of `names` that the broker does not have.
///
/// # Errors
/// When no broker answers.
pub async fn missing(endpoints: &Endpoints, names: &[String]) -> Result<Vec<String>, Error> {
    // A full client would try, and log, for long.
    let port = endpoints.ports.kafka;
    drop(
        TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .await
            .map_err(Error::io(format!("connecting to port {port}")))?,
    );
    let there = list_topics(&endpoints.kafka()).await.map_err(|error| Error::Topics(Box::new(error)))?;
    Ok(names.iter().filter(|name| !there.contains_key(*name)).cloned().collect())
}

/// All topics that the file declares, with `prefix` before their names, for a single broker.
pub fn declared(file: &Path, prefix: &str) -> Result<Vec<TopicSpec>, Error> {
    let text = std::fs::read_to_string(file).map_err(Error::io(format!("reading {}", file.display())))?;
    let parsed: File = serde_saphyr::from_str(&text)
        .map_err(|error| Error::File { file: file.display().to_string(), detail: error.to_string() })?;
    Ok(parsed.sets.iter().flat_map(|set| set.topics(prefix)).collect())
}

impl Set {
    fn topics(&self, prefix: &str) -> impl Iterator<Item = TopicSpec> {
        self.topics.iter().flat_map(move |name| {
            let topic = self.topic(format!("{prefix}{name}"), &self.config);
            let dead = |letters: &DeadLetters| self.topic(format!("{prefix}{name}.dlq"), &letters.config);
            [Some(topic), self.dead_letters.as_ref().map(dead)].into_iter().flatten()
        })
    }

    fn topic(&self, name: String, config: &BTreeMap<String, Value>) -> TopicSpec {
        let config = config.iter().map(|(key, value)| (key.clone(), value.to_string())).collect();
        TopicSpec { name, partitions: self.partitions, replication: 1, config }
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_topic_of_the_order_application_is_declared_with_its_dead_letters_and_equal_partitions() {
        let topics = declared(&Repository::find().unwrap().topics(), "t_").unwrap();
        let partitions = |name: String| topics.iter().find(|topic| topic.name == name).map(|topic| topic.partitions);
        let expected = partitions("t_order.created".into()).unwrap();
        for topic in orders::topics::ALL {
            assert_eq!(partitions(format!("t_{}", topic.name)), Some(expected), "{}", topic.name);
            assert_eq!(partitions(format!("t_{}.dlq", topic.name)), Some(expected), "{}.dlq", topic.name);
        }
        let names: BTreeSet<_> = topics.iter().map(|topic| &topic.name).collect();
        assert_eq!(names.len(), topics.len(), "a topic is declared twice");
    }
}
