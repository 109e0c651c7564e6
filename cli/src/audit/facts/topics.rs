//! What is on the topics.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use anyhow::Context;
use messaging::{Record, admin};
use orders::readers::{READERS, readers};
use orders::topics::{ALL, ORDER_CREATED, Topic};
use uuid::Uuid;

use super::messages::{DeadLetter, Foreign, Message, Names, Original, Place};
use crate::audit::Target;

const LOST_TOPICS: &str = "SELECT topic FROM lost_topics";

/// What one consumer group reads of one partition: group, topic, partition; the names without prefix.
pub(in crate::audit) type Lane = (&'static str, &'static str, i32);

/// Messages that a group had not read yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::audit) struct Unread {
    pub(in crate::audit) lane: Lane,
    /// The offset after the last of them.
    pub(in crate::audit) end: i64,
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
    /// By topic and partition, offsets ascending.
    messages: BTreeMap<(&'static str, i32), Vec<Message>>,
    pub(in crate::audit) foreign: BTreeMap<Place, Foreign>,
    pub(in crate::audit) dead_letters: Vec<DeadLetter>,
    /// Of every partition, by topic and number.
    extents: BTreeMap<(&'static str, i32), Extent>,
    /// The next offset of each lane when nothing was read yet.
    committed: HashMap<Lane, i64>,
    /// Topics that were lost and made again: not everything that was sent to them is there.
    pub(in crate::audit) lost: HashSet<String>,
    /// Places that a dead letter names as its origin, with the groups that gave it up.
    buried: HashMap<Place, BTreeSet<String>>,
    names: Names,
}

impl Topics {
    /// Nothing read yet, but what each group had behind it: of what it had passed by then, every consequence is on the
    /// topics already, since a group commits an offset only after what it caused was acknowledged.
    pub(in crate::audit) async fn begin(target: &Target) -> anyhow::Result<Self> {
        let mut db = super::snapshot(target, "orders").await?;
        let lost: Vec<String> = sqlx::query_scalar(LOST_TOPICS).fetch_all(&mut db).await?;
        Ok(Self { committed: committed(target).await?, lost: lost.into_iter().collect(), ..Self::default() })
    }

    /// Reads `topic` from where reading it ended last to where it ends now.
    pub(in crate::audit) async fn read_on(&mut self, target: &Target, topic: Topic) -> anyhow::Result<()> {
        let name = format!("{}{}", target.topic_prefix, topic.name);
        let read = self.extents.range((topic.name, 0)..=(topic.name, i32::MAX)).map(|(_, extent)| extent.read);
        let from: Vec<i64> = read.collect();
        let mut reading =
            admin::read_from(&target.kafka, &name, &from).await.with_context(|| format!("topic {name}"))?;
        for (partition, (low, high)) in (0..).zip(&reading.ends) {
            let extent = self.extents.entry((topic.name, partition)).or_default();
            (extent.low, extent.high) = (*low, *high);
        }
        let short = self.names.get(topic.name);
        while let Some(record) = reading.records.recv().await {
            self.add(topic, &short, &record.with_context(|| format!("topic {name}"))?);
        }
        Ok(())
    }

    /// Reads the rest. The letters come last: whatever a group had passed before and gave up is among them.
    pub(in crate::audit) async fn finish(mut self, target: &Target) -> anyhow::Result<Self> {
        let existing: HashSet<String> =
            admin::list_topics(&target.kafka).await.context("listing topics")?.into_keys().collect();
        for topic in ALL {
            self.read_on(target, *topic).await?;
        }
        for topic in ALL {
            let name = format!("{}{}", target.topic_prefix, topic.name);
            let letters = messaging::dead_letter::topic_of(&name);
            if existing.contains(&letters) {
                let short = self.names.get(&messaging::dead_letter::topic_of(topic.name));
                let reading = admin::read_from(&target.kafka, &letters, &[]).await;
                let mut reading = reading.with_context(|| format!("topic {letters}"))?;
                while let Some(record) = reading.records.recv().await {
                    self.add_dead_letter(&short, &record.with_context(|| format!("topic {letters}"))?);
                }
            }
            let ends = admin::offsets(&target.kafka, &name).await.with_context(|| format!("topic {name}"))?;
            for (partition, (low, high)) in (0..).zip(ends) {
                let extent = self.extents.entry((topic.name, partition)).or_default();
                (extent.low, extent.high) = (low, high);
            }
        }
        self.messages.values_mut().for_each(Vec::shrink_to_fit);
        Ok(self)
    }

    fn add(&mut self, topic: Topic, short: &Arc<str>, record: &Record) {
        let place: Place = (short.clone(), record.partition, record.offset);
        let extent = self.extents.entry((topic.name, record.partition)).or_default();
        extent.read = extent.read.max(record.offset + 1);
        match Message::of(topic, record, place.clone(), &mut self.names) {
            Ok(message) => self.messages.entry((topic.name, record.partition)).or_default().push(message),
            Err(fault) => {
                self.foreign.insert(place, Foreign::of(record, fault));
            }
        }
    }

    fn add_dead_letter(&mut self, short: &Arc<str>, record: &Record) {
        let place: Place = (short.clone(), record.partition, record.offset);
        let letter = DeadLetter::of(record, place, &mut self.names);
        if let (Some(origin), Some(group)) = (&letter.origin, &letter.group) {
            self.buried.entry(origin.clone()).or_default().insert(group.clone());
        }
        self.dead_letters.push(letter);
    }

    /// The messages of `topic`.
    pub(in crate::audit) fn on(&self, topic: Topic) -> impl Iterator<Item = &Message> {
        self.messages.range((topic.name, 0)..=(topic.name, i32::MAX)).flat_map(|(_, messages)| messages)
    }

    /// The messages of `topic` that not every group which reads it gave up.
    pub(in crate::audit) fn alive(&self, topic: Topic) -> impl Iterator<Item = &Message> {
        let is_dead = move |message: &Message| {
            let given_up = self.buried.get(&message.place);
            given_up.is_some_and(|groups| readers(topic.name).all(|group| groups.contains(group)))
        };
        self.on(topic).filter(move |message| !is_dead(message))
    }

    /// What lies at `place`, as a dead letter of it may hold it.
    pub(in crate::audit) fn original(&self, place: &Place) -> Option<Original> {
        if let Some(foreign) = self.foreign.get(place) {
            return Some(foreign.original);
        }
        let messages = self.messages.get(&(Topic::find(&place.0)?.name, place.1))?;
        let index = messages.binary_search_by_key(&place.2, |message| message.place.2).ok()?;
        Some(messages[index].original())
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

    /// Whether `group` had what lies at `place` behind it.
    pub(in crate::audit) fn has_passed(&self, group: &str, place: &Place) -> bool {
        self.committed.get(&(group, &*place.0, place.1)).is_some_and(|next| *next > place.2)
    }

    /// By order, its messages that waited to be read.
    pub(in crate::audit) fn unread(&self) -> HashMap<Uuid, Vec<Unread>> {
        let mut unread: HashMap<Uuid, Vec<Unread>> = HashMap::new();
        for ((topic, partition), messages) in &self.messages {
            for group in readers(topic) {
                let lane = (group, *topic, *partition);
                let next = self.next_before(&lane);
                let first = messages.partition_point(|message| message.place.2 < next);
                for message in &messages[first..] {
                    let (Some(order), end) = (message.key.order(), message.place.2 + 1) else { continue };
                    let of_order = unread.entry(order).or_default();
                    match of_order.last_mut().filter(|last| last.lane == lane) {
                        Some(last) => last.end = end,
                        None => of_order.push(Unread { lane, end }),
                    }
                }
            }
        }
        unread
    }

    /// The answers that waited for the orchestrator. Its timers wait for them too, for those of all its partitions.
    pub(in crate::audit) fn unread_answers(&self) -> Vec<Unread> {
        let there = answers().flat_map(|(group, topic)| {
            let extents = self.extents.range((topic.name, 0)..=(topic.name, i32::MAX));
            extents
                .map(move |((name, partition), extent)| Unread { lane: (group, *name, *partition), end: extent.read })
        });
        there.filter(|unread| self.next_before(&unread.lane) < unread.end).collect()
    }

    /// The next offset of `lane` when nothing was read yet.
    pub(in crate::audit) fn next_before(&self, lane: &Lane) -> i64 {
        self.committed.get(lane).copied().unwrap_or_default()
    }
}

/// The topics with answers for the orchestrator, and its group.
fn answers() -> impl Iterator<Item = (&'static str, Topic)> {
    READERS.iter().filter(|(group, _)| *group == "orchestrator").flat_map(|(group, topics)| {
        topics.iter().filter(|topic| **topic != ORDER_CREATED).map(|topic| (*group, *topic))
    })
}

/// All answers for the orchestrator that are there by now, read or not.
pub(in crate::audit) async fn answers_by_now(target: &Target) -> anyhow::Result<Vec<Unread>> {
    let mut there = Vec::new();
    for (group, topic) in answers() {
        let name = format!("{}{}", target.topic_prefix, topic.name);
        let ends = admin::offsets(&target.kafka, &name).await.with_context(|| format!("topic {name}"))?;
        // Where retention has left nothing, nothing is waited for.
        let filled = (0..).zip(ends).filter(|(_, (low, high))| low < high);
        there.extend(filled.map(|(partition, (_, end))| Unread { lane: (group, topic.name, partition), end }));
    }
    Ok(there)
}

/// The next offset of every lane in which a group has committed one.
pub(in crate::audit) async fn committed(target: &Target) -> anyhow::Result<HashMap<Lane, i64>> {
    let mut committed = HashMap::new();
    for (group, subscribed) in READERS {
        let full: Vec<String> =
            subscribed.iter().map(|topic| format!("{}{}", target.topic_prefix, topic.name)).collect();
        let name = format!("{}{group}", target.topic_prefix);
        let offsets =
            admin::group_offsets(&target.kafka, &name, &full).await.with_context(|| format!("group {name}"))?;
        for ((topic, partition), offset) in offsets {
            let topic = topic.strip_prefix(&target.topic_prefix).and_then(Topic::find);
            committed.extend(topic.map(|topic| ((*group, topic.name, partition), offset)));
        }
    }
    Ok(committed)
}
