use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::{AdminError, all_partitions, failed, watermarks};
use crate::{KafkaConfig, client};

/// A question that takes longer is asked again later.
const PATIENCE: Duration = Duration::from_secs(5);
/// Of a client that belongs to no group that anybody is in.
const READER: &str = "chaos-symphony-reader";

/// Asks again and again where topics end and how far groups have come, over connections that are kept: one, and one for
/// each group that was asked about.
pub struct Observer {
    config: KafkaConfig,
    clients: Mutex<HashMap<String, Arc<BaseConsumer>>>,
}

impl Observer {
    /// Connects when it is first asked. All names are those of the platform, without prefix.
    pub fn new(config: KafkaConfig) -> Self {
        Observer { config, clients: Mutex::default() }
    }

    /// The committed offset of `group` in each partition of `topic` that has one.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn committed(&self, group: &str, topic: &str) -> Result<BTreeMap<i32, i64>, AdminError> {
        let (group, topic) = (self.config.group(group), self.config.topic(topic));
        self.ask(group.clone(), move |client| {
            let list = all_partitions(client, &[topic])?;
            let committed =
                client.committed_offsets(list, PATIENCE).map_err(failed(format!("read offsets of {group}")))?;
            let offset = |offset| if let Offset::Offset(offset) = offset { Some(offset) } else { None };
            let offsets = committed.to_topic_map().into_iter();
            Ok(offsets.filter_map(|((_, partition), value)| Some((partition, offset(value)?))).collect())
        })
        .await
    }

    /// The first and the next offset of each partition of `topic`.
    ///
    /// # Errors
    /// When the broker does not answer or the topic does not exist.
    pub async fn ends(&self, topic: &str) -> Result<Vec<(i64, i64)>, AdminError> {
        let topic = self.config.topic(topic);
        self.ask(READER.to_owned(), move |client| watermarks(client, &topic)).await
    }

    /// Closes the connections for all other groups. Must be called inside a runtime.
    pub fn forget_all_but(&self, groups: &HashSet<&str>) {
        let kept: HashSet<String> = groups.iter().map(|group| self.config.group(group)).collect();
        let is_forgotten = |group: &String| group != READER && !kept.contains(group);
        let forgotten: Vec<_> = self.lock().extract_if(|group, _| is_forgotten(group)).collect();
        if !forgotten.is_empty() {
            // Closing a client blocks.
            tokio::task::spawn_blocking(move || drop(forgotten));
        }
    }

    async fn ask<T: Send + 'static>(
        &self,
        group: String,
        question: impl FnOnce(&BaseConsumer) -> Result<T, AdminError> + Send + 'static,
    ) -> Result<T, AdminError> {
        let client = match self.lock().entry(group) {
            Entry::Occupied(known) => known.get().clone(),
            Entry::Vacant(new) => {
                let client = Arc::new(Self::client(&self.config, new.key())?);
                new.insert(client).clone()
            }
        };
        // The last handle may go here, and closing a client blocks.
        tokio::task::spawn_blocking(move || question(&client)).await?
    }

    fn client(config: &KafkaConfig, group: &str) -> Result<BaseConsumer, AdminError> {
        client::base(config, "observer")
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .create()
            .map_err(failed("create an observer"))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<BaseConsumer>>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
