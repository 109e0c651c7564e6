//! What is on the topics of the sagas, as it comes.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use messaging::{CancellationToken, KafkaConfig, Record, follow};
use saga::Definition;
use uuid::Uuid;

/// Records by topic and key, in their order.
type Records = HashMap<(String, String), Vec<Record>>;

/// What is on the followed topics.
pub(super) struct Journal {
    records: Arc<Mutex<Records>>,
    stop: CancellationToken,
}

impl Journal {
    /// Follows every topic that one of `definitions` names.
    pub(super) fn of(definitions: &[Arc<Definition>], kafka: &KafkaConfig) -> anyhow::Result<Self> {
        let journal = Self { records: Arc::default(), stop: CancellationToken::new() };
        let topics: BTreeSet<&str> = definitions.iter().flat_map(|definition| topics(definition)).collect();
        for topic in topics {
            let records = Arc::clone(&journal.records);
            let apply = move |record: Record| {
                let key = String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()).into_owned();
                let place = (record.topic.clone(), key);
                records.lock().unwrap_or_else(PoisonError::into_inner).entry(place).or_default().push(record);
            };
            follow(kafka, topic, journal.stop.clone(), apply)?;
        }
        Ok(journal)
    }

    /// The messages of `saga` on `topic`, in their order.
    pub(super) fn on(&self, topic: &str, saga: Uuid) -> Vec<Record> {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.get(&(topic.to_owned(), saga.to_string())).cloned().unwrap_or_default()
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn topics(definition: &Definition) -> Vec<&str> {
    let mut topics = vec![definition.trigger().topic.as_str()];
    for step in definition.steps() {
        topics.push(&step.command.topic);
        topics.extend(step.undo().map(|undo| undo.command.topic.as_str()));
    }
    topics.extend(definition.reply_channels().map(|(topic, _)| topic));
    let ends = definition.ends();
    topics.extend([&ends.completed, &ends.cancelled, &ends.parked].map(|end| end.topic.as_str()));
    topics
}
