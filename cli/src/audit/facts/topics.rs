//! What is on the topics.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use anyhow::Context;
use messaging::{Envelope, Record, admin};
use orders::readers::{READERS, readers};
use orders::topics::{ALL, Topic};
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::audit::Target;

/// The header of a letter that its topic refused whole.
const TRUNCATED: &str = "dlq-truncated-from";
/// The header of a record that an injected fault has changed; `service_kit::chaos::HEADER`.
const CORRUPTED: &str = "chaos-fault";

const LOST_TOPICS: &str = "SELECT topic FROM lost_topics";

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
    /// The original's key, when it is text.
    pub(in crate::audit) key: Option<String>,
    pub(in crate::audit) group: Option<String>,
    pub(in crate::audit) reason: Option<String>,
    pub(in crate::audit) error: Option<String>,
    /// Over key and value; none when the letter was too large for its topic, and holds only the start of the value, or
    /// when an injected fault had broken it on its way to the consumer.
    pub(in crate::audit) digest: Option<[u8; 32]>,
}

impl DeadLetter {
    /// Whether it can be a copy of a message with this digest.
    pub(in crate::audit) fn is_copy_of(&self, digest: &[u8; 32]) -> bool {
        self.digest.as_ref().is_none_or(|own| own == digest)
    }
}

/// How much there was of a partition.
#[derive(Clone, Copy, Default)]
pub(in crate::audit) struct Extent {
    /// The first offset that the broker still had when all was read: whatever was before it, retention has removed.
    pub(in crate::audit) low: i64,
    /// The offset after the last message that was read.
    pub(in crate::audit) read: i64,
    /// The offset after the last message that was there when the dead letters had been read too.
    pub(in crate::audit) high: i64,
}

/// Every topic of the order application, read from its start to its end.
#[derive(Default)]
pub(in crate::audit) struct Topics {
    pub(in crate::audit) messages: BTreeMap<&'static str, Vec<Message>>,
    pub(in crate::audit) foreign: Vec<Foreign>,
    pub(in crate::audit) dead_letters: Vec<DeadLetter>,
    /// Key and value of each message that a dead letter can be a copy of.
    pub(in crate::audit) digests: HashMap<Place, [u8; 32]>,
    /// Of every partition, by topic and number.
    pub(in crate::audit) extents: BTreeMap<(&'static str, i32), Extent>,
    /// What each consumer group has behind it, by group, topic and partition; all without prefix. Only read when a
    /// foreign message makes it matter.
    pub(in crate::audit) committed: HashMap<(String, String, i32), i64>,
    /// Topics that were lost and made again: not everything that was sent to them is there.
    pub(in crate::audit) lost: HashSet<String>,
    /// Places that a dead letter names as its origin, with the groups that gave it up.
    buried: HashMap<Place, BTreeSet<String>>,
}

impl Topics {
    /// A group commits an offset only after the letter of what it gave up was acknowledged, so the letters are read
    /// last: whatever a group had passed by then and gave up is among them.
    pub(in crate::audit) async fn read(target: &Target) -> anyhow::Result<Self> {
        let existing: HashSet<String> =
            admin::list_topics(&target.kafka).await.context("listing topics")?.into_keys().collect();
        let mut db = super::snapshot(target, "orders").await?;
        let lost: Vec<String> = sqlx::query_scalar(LOST_TOPICS).fetch_all(&mut db).await?;
        let mut topics = Self { lost: lost.into_iter().collect(), ..Self::default() };
        for topic in ALL {
            let name = format!("{}{}", target.topic_prefix, topic.name);
            for record in read(target, &name, topic.name).await? {
                topics.add(*topic, &record);
            }
        }
        if !topics.foreign.is_empty() {
            topics.committed = committed(target).await?;
        }
        for topic in ALL {
            let name = format!("{}{}", target.topic_prefix, topic.name);
            let letters = messaging::dead_letter::topic_of(&name);
            if existing.contains(&letters) {
                for record in read(target, &letters, &messaging::dead_letter::topic_of(topic.name)).await? {
                    topics.add_dead_letter(&record);
                }
            }
            let ends = admin::offsets(&target.kafka, &name).await.with_context(|| format!("topic {name}"))?;
            for (partition, (low, high)) in (0..).zip(ends) {
                let extent = topics.extents.entry((topic.name, partition)).or_default();
                (extent.low, extent.high) = (low, high);
            }
        }
        Ok(topics)
    }

    fn add(&mut self, topic: Topic, record: &Record) {
        let place: Place = (topic.name.to_owned(), record.partition, record.offset);
        let extent = self.extents.entry((topic.name, record.partition)).or_default();
        extent.read = extent.read.max(record.offset + 1);
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
        let (origin, group) = (origin(), text("dlq-consumer-group"));
        if let (Some(origin), Some(group)) = (&origin, &group) {
            self.buried.entry(origin.clone()).or_default().insert(group.clone());
        }
        self.dead_letters.push(DeadLetter {
            place: (record.topic.clone(), record.partition, record.offset),
            origin,
            key: record.key.clone().and_then(|key| String::from_utf8(key).ok()),
            group,
            reason: text("dlq-reason"),
            error: text("dlq-error"),
            digest: [TRUNCATED, CORRUPTED].iter().all(|mark| record.header(mark).is_none()).then(|| whole(record)),
        });
    }

    /// The messages of `topic`.
    pub(in crate::audit) fn on(&self, topic: Topic) -> &[Message] {
        self.messages.get(topic.name).map_or(&[], Vec::as_slice)
    }

    /// The messages of `topic` that not every group which reads it gave up.
    pub(in crate::audit) fn alive(&self, topic: Topic) -> impl Iterator<Item = &Message> {
        let is_dead = move |message: &Message| {
            let given_up = self.buried.get(&message.place);
            given_up.is_some_and(|groups| readers(topic.name).all(|group| groups.contains(group)))
        };
        self.on(topic).iter().filter(move |message| !is_dead(message))
    }

    /// Whether retention has removed nothing from `topic`, or from its `partition` alone, and it was never lost.
    pub(in crate::audit) fn is_whole(&self, topic: Topic, partition: Option<i32>) -> bool {
        let of_topic = self.extents.iter().filter(|((name, _), _)| *name == topic.name);
        let mut asked = of_topic.filter(|((_, number), _)| partition.is_none_or(|partition| partition == *number));
        !self.lost.contains(topic.name) && asked.all(|(_, extent)| extent.low == 0)
    }

    /// The extent of the partition that `place` is in, if there is such a partition.
    pub(in crate::audit) fn extent(&self, place: &Place) -> Option<&Extent> {
        let topic = Topic::find(&place.0)?;
        self.extents.get(&(topic.name, place.1))
    }

    /// The last dead letter with this key.
    pub(in crate::audit) fn last_letter(&self, key: Uuid) -> Option<&DeadLetter> {
        let key = key.to_string();
        self.dead_letters.iter().rfind(|letter| letter.key.as_deref() == Some(key.as_str()))
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

/// The committed offset of each consumer group in every partition of its topics.
async fn committed(target: &Target) -> anyhow::Result<HashMap<(String, String, i32), i64>> {
    let mut committed = HashMap::new();
    for (group, subscribed) in READERS {
        let full: Vec<String> =
            subscribed.iter().map(|topic| format!("{}{}", target.topic_prefix, topic.name)).collect();
        let name = format!("{}{group}", target.topic_prefix);
        let offsets =
            admin::group_offsets(&target.kafka, &name, &full).await.with_context(|| format!("group {name}"))?;
        for ((topic, partition), offset) in offsets {
            let topic = topic.strip_prefix(&target.topic_prefix).unwrap_or(&topic).to_owned();
            committed.insert(((*group).to_owned(), topic, partition), offset);
        }
    }
    Ok(committed)
}
