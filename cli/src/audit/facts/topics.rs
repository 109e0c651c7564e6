//! What is on the topics.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::Context;
use messaging::{Envelope, Record, admin};
use orders::topics::{ALL, Topic};
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::audit::{Target, i6};

/// The header of a record that an injected fault has changed; `service_kit::chaos::HEADER`.
const CORRUPTED_BY: &str = "chaos-fault";

/// Where a message lies: topic, partition, offset.
pub(in crate::audit) type Place = (String, i32, i64);

/// A message that the platform could have sent.
pub(in crate::audit) struct Message {
    pub(in crate::audit) id: Uuid,
    pub(in crate::audit) key: String,
    pub(in crate::audit) place: Place,
    pub(in crate::audit) saga: Option<Uuid>,
    pub(in crate::audit) step: Option<String>,
    /// Over the value.
    pub(in crate::audit) digest: [u8; 32],
    /// The id in the value of the thing it tells of: a payment, reservation, or shipment.
    pub(in crate::audit) reference: Option<Uuid>,
}

/// What is no message of the platform: nobody can have sent it by the protocol, and nobody can process it.
pub(in crate::audit) struct Foreign {
    pub(in crate::audit) place: Place,
    /// What is wrong with it.
    pub(in crate::audit) fault: String,
    /// Over key and value.
    pub(in crate::audit) digest: [u8; 32],
}

/// A dead letter.
pub(in crate::audit) struct DeadLetter {
    /// Where it lies itself.
    pub(in crate::audit) place: Place,
    /// Where it came from, when its headers say so.
    pub(in crate::audit) origin: Option<Place>,
    pub(in crate::audit) group: Option<String>,
    pub(in crate::audit) reason: Option<String>,
    pub(in crate::audit) error: Option<String>,
    /// Over key and value.
    pub(in crate::audit) digest: [u8; 32],
    /// Whether an injected fault broke it on its way to the consumer, so that its bytes are not the original's.
    pub(in crate::audit) corrupted: bool,
}

/// Every topic of the order application, read from its start to its end.
#[derive(Default)]
pub(in crate::audit) struct Topics {
    pub(in crate::audit) messages: BTreeMap<&'static str, Vec<Message>>,
    pub(in crate::audit) foreign: Vec<Foreign>,
    pub(in crate::audit) dead_letters: Vec<DeadLetter>,
    /// Key and value of each message that a dead letter can be a copy of.
    pub(in crate::audit) digests: HashMap<Place, [u8; 32]>,
    /// Of each partition, the first offset that retention has left; 0 when all is there.
    pub(in crate::audit) first_offsets: HashMap<(String, i32), i64>,
    /// Places that a dead letter names as its origin.
    pub(in crate::audit) buried: HashSet<Place>,
}

impl Topics {
    pub(in crate::audit) async fn read(target: &Target) -> anyhow::Result<Self> {
        let existing: HashSet<String> =
            admin::list_topics(&target.kafka).await.context("listing topics")?.into_keys().collect();
        let mut topics = Self::default();
        for topic in ALL {
            let name = format!("{}{}", target.topic_prefix, topic.name);
            let letters = messaging::dead_letter::topic_of(&name);
            // Without its dead letter topic nothing of a topic can be judged, so a missing one is an error.
            for record in read(target, &name, topic.name).await? {
                topics.add(*topic, &record);
            }
            if existing.contains(&letters) {
                for record in read(target, &letters, &messaging::dead_letter::topic_of(topic.name)).await? {
                    topics.add_dead_letter(&record);
                }
            }
        }
        Ok(topics)
    }

    fn add(&mut self, topic: Topic, record: &Record) {
        let place: Place = (topic.name.to_owned(), record.partition, record.offset);
        let first = self.first_offsets.entry((place.0.clone(), place.1)).or_insert(record.offset);
        *first = record.offset.min(*first);
        let digest = whole(record);
        self.digests.insert(place.clone(), digest);
        match message(topic, record, place.clone()) {
            Ok(message) => self.messages.entry(topic.name).or_default().push(message),
            Err(fault) => self.foreign.push(Foreign { place, fault, digest }),
        }
    }

    fn add_dead_letter(&mut self, record: &Record) {
        let number = |name| record.header(name).and_then(|text| text.parse::<i64>().ok());
        let origin = || {
            let topic = record.header("dlq-topic")?.to_owned();
            Some((topic, i32::try_from(number("dlq-partition")?).ok()?, number("dlq-offset")?))
        };
        let text = |name| record.header(name).filter(|text| !text.is_empty()).map(str::to_owned);
        let origin = origin();
        self.buried.extend(origin.clone());
        self.dead_letters.push(DeadLetter {
            place: (record.topic.clone(), record.partition, record.offset),
            origin,
            group: text("dlq-consumer-group"),
            reason: text("dlq-reason"),
            error: text("dlq-error"),
            digest: whole(record),
            corrupted: record.header(CORRUPTED_BY).is_some(),
        });
    }

    /// The messages of `topic`.
    pub(in crate::audit) fn on(&self, topic: Topic) -> &[Message] {
        self.messages.get(topic.name).map_or(&[], Vec::as_slice)
    }

    /// The messages of `topic` that nobody gave up.
    pub(in crate::audit) fn alive(&self, topic: Topic) -> impl Iterator<Item = &Message> {
        self.on(topic).iter().filter(|message| !self.buried.contains(&message.place))
    }

    /// Whether retention has removed nothing from `topic`.
    pub(in crate::audit) fn is_whole(&self, topic: Topic) -> bool {
        self.first_offsets.iter().all(|((name, _), first)| name != topic.name || *first == 0)
    }
}

async fn read(target: &Target, name: &str, short: &str) -> anyhow::Result<Vec<Record>> {
    let mut records = admin::read_topic(&target.kafka, name).await.with_context(|| format!("topic {name}"))?;
    for record in &mut records {
        record.topic = short.to_owned();
    }
    Ok(records)
}

fn message(topic: Topic, record: &Record, place: Place) -> Result<Message, String> {
    let envelope = Envelope::of(record).map_err(|poison| poison.to_string())?;
    if envelope.event_type != topic.event_type {
        return Err(format!("ce_type is {}", envelope.event_type));
    }
    let value: Value = record.json().map_err(|poison| poison.to_string())?;
    if !value.is_object() {
        return Err("the value is no JSON object".into());
    }
    let field = |name: &str| value.get(name).and_then(Value::as_str).and_then(|text| text.parse().ok());
    Ok(Message {
        id: envelope.id,
        key: envelope.subject,
        place,
        saga: envelope.saga_id,
        step: envelope.step,
        digest: Sha256::digest(record.payload.as_deref().unwrap_or_default()).into(),
        reference: field("paymentId").or_else(|| field("reservationId")).or_else(|| field("shipmentId")),
    })
}

/// Over key and value; an absent one differs from an empty one.
fn whole(record: &Record) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [&record.key, &record.payload] {
        hash.update([u8::from(part.is_some())]);
        hash.update(part.as_ref().map_or(0, Vec::len).to_le_bytes());
        hash.update(part.as_deref().unwrap_or_default());
    }
    hash.finalize().into()
}

/// A place as people read it.
pub(in crate::audit) fn at(place: &Place) -> String {
    format!("{}/{}@{}", place.0, place.1, place.2)
}

/// What each consumer group has behind it: its committed offset in every partition of its topics.
pub(in crate::audit) async fn committed(
    target: &Target,
    topics: &Topics,
) -> anyhow::Result<HashMap<(String, String, i32), i64>> {
    // Only asked for when something depends on it.
    let mut committed = HashMap::new();
    if topics.foreign.is_empty() {
        return Ok(committed);
    }
    for (group, subscribed) in i6::subscriptions() {
        let full: Vec<String> = subscribed.iter().map(|topic| format!("{}{topic}", target.topic_prefix)).collect();
        let name = format!("{}{group}", target.topic_prefix);
        let offsets =
            admin::group_offsets(&target.kafka, &name, &full).await.with_context(|| format!("group {name}"))?;
        for ((topic, partition), offset) in offsets {
            let topic = topic.strip_prefix(&target.topic_prefix).unwrap_or(&topic).to_owned();
            committed.insert((group.to_owned(), topic, partition), offset);
        }
    }
    Ok(committed)
}
