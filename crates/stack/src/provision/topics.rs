//! The topics of `kafka/topics.yaml`.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;

use messaging::admin::{AdminError, TopicSpec, create_topics, delete_topics, list_topics};
use serde::Deserialize;
use tokio::net::TcpStream;

use super::databases::superuser;
use super::{Names, owed};
use crate::Error;
use crate::layout::Repository;
use crate::servers::Endpoints;

const NOTE_LOST: &str = "INSERT INTO lost_topics (topic) SELECT UNNEST($1::text[]) \
    ON CONFLICT (topic) DO UPDATE SET made_at = now()";

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

/// What the broker does not have as it is declared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lacking {
    /// Topics that are not there.
    pub missing: Vec<TopicSpec>,
    /// Topics with another number of partitions, which they have.
    pub repartitioned: Vec<(TopicSpec, usize)>,
}

/// The declared topics that are not there.
pub async fn missing(endpoints: &Endpoints, repository: &Repository, prefix: &str) -> Result<Vec<TopicSpec>, Error> {
    Ok(lacking(endpoints, &declared(&repository.topics(), prefix)?).await?.missing)
}

/// Makes `topics`; those that exist stay as they are.
pub async fn create(endpoints: &Endpoints, topics: &[TopicSpec]) -> Result<(), Error> {
    // A request for none is refused.
    if topics.is_empty() {
        return Ok(());
    }
    create_topics(&endpoints.kafka(), topics).await.map_err(failed("creating the topics"))
}

/// The topics in which Connect keeps its state. It makes them itself, but only when it starts.
pub fn of_connect() -> Vec<TopicSpec> {
    let compacted = || BTreeMap::from([("cleanup.policy".to_owned(), "compact".to_owned())]);
    ["connect.configs", "connect.offsets", "connect.status"]
        .map(|name| TopicSpec { name: name.to_owned(), partitions: 1, replication: 1, config: compacted() })
        .to_vec()
}

/// Deletes what Connect, which must not run, has kept; it begins anew at its next start.
pub async fn forget_connect(endpoints: &Endpoints) -> Result<(), Error> {
    let topics = of_connect();
    let names: Vec<&str> = topics.iter().map(|topic| topic.name.as_str()).collect();
    delete_topics(&endpoints.kafka(), &names).await.map_err(failed("deleting the topics of Connect"))
}

/// What the broker lacks of `topics`.
///
/// # Errors
/// When no broker answers.
pub async fn lacking(endpoints: &Endpoints, topics: &[TopicSpec]) -> Result<Lacking, Error> {
    // A full client would try, and log, for long.
    let port = endpoints.ports.kafka;
    drop(
        TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .await
            .map_err(Error::io(format!("connecting to port {port}")))?,
    );
    let there = list_topics(&endpoints.kafka()).await.map_err(failed("listing the topics"))?;
    let mut lacking = Lacking::default();
    for topic in topics {
        match there.get(&topic.name) {
            None => lacking.missing.push(topic.clone()),
            Some(partitions) if i32::try_from(*partitions) == Ok(topic.partitions) => {}
            Some(partitions) => lacking.repartitioned.push((topic.clone(), *partitions)),
        }
    }
    Ok(lacking)
}

/// How `topic` differs from its declaration, when it has so many partitions.
pub fn repartitioned(topic: &TopicSpec, partitions: usize) -> String {
    format!("{} has {partitions} partitions and is declared with {}", topic.name, topic.partitions)
}

/// Makes topics again that were lost with all that was on them. Their readers begin at the start, since the broker has
/// forgotten how far they were. What was lost has to be published again, see [`super::refill`]: it is owed until then.
pub async fn make_again(endpoints: &Endpoints, names: &Names, topics: &[TopicSpec]) -> Result<(), Error> {
    owed::owe(endpoints, names, owed::TOPICS).await?;
    note_lost(endpoints, names, topics).await?;
    create(endpoints, topics).await
}

/// Writes down that what was on `topics` is lost: from then on nobody expects of them everything that was ever sent.
pub async fn note_lost(endpoints: &Endpoints, names: &Names, topics: &[TopicSpec]) -> Result<(), Error> {
    let doing = || Error::database("writing down which topics were lost");
    let lost: Vec<&str> = topics.iter().filter_map(|topic| topic.name.strip_prefix(&names.topic_prefix)).collect();
    let mut connection = superuser(endpoints, &names.orders_database()).await?;
    sqlx::query(NOTE_LOST).bind(lost).execute(&mut connection).await.map(|_| ()).map_err(doing())
}

/// For `map_err`.
pub(crate) fn failed(doing: &'static str) -> impl FnOnce(AdminError) -> Error {
    move |source| Error::Kafka { doing, source: Box::new(source) }
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
