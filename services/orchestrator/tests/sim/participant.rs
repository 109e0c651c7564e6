//! A participant that keeps the seven rules of `docs/writing-a-participant.md`: its loop, cut into the phases between
//! which it can die.

use std::collections::BTreeMap;
use std::ops::Range;

use chrono::{DateTime, Utc};
use messaging::{Delivery, Outgoing, Record, dead_letter};
use saga::definition::{Channel, Step};
use saga::ids;
use serde_json::json;
use uuid::Uuid;

use crate::log::Publishing;
use crate::member::{Member, delivery};
use crate::rules::Sabotage;
use crate::surroundings::Surroundings;
use crate::work::{Asked, Row, State, Work, subject};

/// A command brought the transaction down.
struct Choked;

/// The dead letter of a command.
fn letter(record: &Record, Delivery { envelope, .. }: &Delivery<Asked>) -> Outgoing {
    Outgoing {
        topic: dead_letter::topic_of(&record.topic),
        key: envelope.subject.clone(),
        id: envelope.id,
        event_type: envelope.event_type.clone(),
        source: envelope.source.clone(),
        subject: envelope.subject.clone(),
        time: envelope.time,
        saga_id: envelope.saga_id,
        definition: None,
        step: envelope.step.clone(),
        causation_id: envelope.causation_id,
        traceparent: envelope.traceparent.clone(),
        payload: record.payload.clone().unwrap_or_default(),
    }
}

#[derive(Debug)]
pub(crate) struct Participant {
    pub(crate) member: Member,
    step: Step,
    in_hand: InHand,
}

/// What it has in hand. All of it is lost in a crash.
#[derive(Debug, Default)]
enum InHand {
    #[default]
    Nothing,
    Gathered {
        records: Vec<Record>,
    },
    /// The batch brought the transaction down: ever smaller parts of it go on, the last one next.
    Split {
        records: Vec<Record>,
        parts: Vec<Range<usize>>,
        changed: BTreeMap<Uuid, Row>,
        letters: Vec<Outgoing>,
    },
    /// Effects are committed; the stored answers are still to be read.
    Applied {
        records: Vec<Record>,
        changed: BTreeMap<Uuid, Row>,
        letters: Vec<Outgoing>,
    },
    Publishing {
        records: Vec<Record>,
        publishing: Publishing,
    },
    Acknowledged {
        records: Vec<Record>,
    },
    /// Late answers, to be forgotten once they are acknowledged.
    Answering {
        sagas: Vec<Uuid>,
        publishing: Publishing,
    },
    Answered {
        sagas: Vec<Uuid>,
    },
}

impl Participant {
    pub(crate) fn new(id: u64, step: &Step) -> Self {
        let outlets = [Some(&step.command), step.undo().map(|undo| &undo.command)];
        let topics = outlets.into_iter().flatten().map(|outlet| (outlet.topic.clone(), outlet.event_type.clone()));
        let member = Member::new(&step.name, id, topics.collect());
        Participant { member, step: step.clone(), in_hand: InHand::Nothing }
    }

    /// Hears of a rebalance, and gives up what it has in hand.
    pub(crate) fn notice(&mut self, around: &mut Surroundings) {
        self.member.notice(&mut around.broker);
        self.in_hand = InHand::Nothing;
    }

    /// Goes on to the next point at which it could die. Tells whether there was something to do.
    pub(crate) fn go_on(&mut self, around: &mut Surroundings) -> bool {
        match std::mem::take(&mut self.in_hand) {
            InHand::Nothing => return self.begin(around),
            InHand::Gathered { records } => {
                let batch = self.decode(&records);
                self.in_hand = match self.apply(&batch, around) {
                    Ok(changed) => InHand::Applied { records, changed, letters: Vec::new() },
                    Err(Choked) => {
                        around.seen.insert("a batch is split");
                        self.split(records)
                    }
                };
            }
            InHand::Split { records, parts, changed, letters } => {
                self.in_hand = self.apply_part(records, parts, changed, letters, around);
            }
            InHand::Applied { records, changed, letters } => {
                let answers = self.answers(&self.decode(&records), &changed, around);
                let answers = letters.into_iter().chain(answers).collect();
                if around.sabotage == Sabotage::OffsetsBeforeAcks {
                    self.member.done(&records);
                    self.member.commit(&mut around.broker);
                }
                self.in_hand = InHand::Publishing { records, publishing: Publishing::of(answers) };
            }
            InHand::Publishing { records, mut publishing } => {
                self.in_hand = match around.publish(&mut publishing) {
                    true => InHand::Acknowledged { records },
                    false => InHand::Publishing { records, publishing },
                };
            }
            InHand::Acknowledged { records } => self.member.done(&records),
            InHand::Answering { sagas, mut publishing } => {
                self.in_hand = match around.publish(&mut publishing) {
                    true => InHand::Answered { sagas },
                    false => InHand::Answering { sagas, publishing },
                };
            }
            InHand::Answered { sagas } => {
                let work = self.work(around);
                sagas.iter().for_each(|saga| drop(work.slow.remove(saga)));
            }
        }
        true
    }

    fn begin(&mut self, around: &mut Surroundings) -> bool {
        if self.member.commit(&mut around.broker) {
            return true;
        }
        let most = 1 + around.random.below(6);
        let records = self.member.gather(&around.broker, &mut around.random, most);
        if !records.is_empty() {
            self.in_hand = InHand::Gathered { records };
            return true;
        }
        let now = around.now;
        let due = self.work(around).wake(now);
        if due.is_empty() {
            return false;
        }
        around.seen.insert("an answer comes late");
        let sagas = due.iter().map(|(saga, ..)| *saga).collect();
        let answers = due.iter().filter_map(|(_, command, row)| self.answer(command, row)).collect();
        self.in_hand = InHand::Answering { sagas, publishing: Publishing::of(answers) };
        true
    }

    fn apply(&self, batch: &[Delivery<Asked>], around: &mut Surroundings) -> Result<BTreeMap<Uuid, Row>, Choked> {
        let (now, sabotage) = (around.now, around.sabotage);
        let work = self.work(around);
        if batch.iter().any(|delivery| delivery.message == Asked::Do && work.chokes_on(subject(delivery))) {
            return Err(Choked);
        }
        let changed = work.apply(batch, self.step.replies.failure.is_some(), now, sabotage);
        if changed.values().any(|row| row.state == State::Refused) {
            around.seen.insert("a tombstone is left");
        }
        Ok(changed)
    }

    /// As `Batches::apply` does it.
    fn split(&self, mut records: Vec<Record>) -> InHand {
        records.sort_by(|one, other| one.key.cmp(&other.key));
        let parts = messaging::split(&self.decode(&records), 0..records.len());
        InHand::Split { records, parts, changed: BTreeMap::new(), letters: Vec::new() }
    }

    fn apply_part(
        &self,
        records: Vec<Record>,
        mut parts: Vec<Range<usize>>,
        mut changed: BTreeMap<Uuid, Row>,
        mut letters: Vec<Outgoing>,
        around: &mut Surroundings,
    ) -> InHand {
        let Some(part) = parts.pop() else { return InHand::Applied { records, changed, letters } };
        let batch = self.decode(&records);
        match self.apply(&batch[part.clone()], around) {
            Ok(rows) => changed.extend(rows),
            Err(Choked) if part.len() > 1 => parts.extend(messaging::split(&batch, part)),
            Err(Choked) => letters.push(letter(&records[part.start], &batch[part.start])),
        }
        InHand::Split { records, parts, changed, letters }
    }

    fn work<'s>(&self, around: &'s mut Surroundings) -> &'s mut Work {
        around.works.get_mut(&self.step.name).expect("its database")
    }

    fn decode(&self, records: &[Record]) -> Vec<Delivery<Asked>> {
        let asked = |record: &Record| if record.topic == self.step.command.topic { Asked::Do } else { Asked::Undo };
        records.iter().map(|record| delivery(record, self.member.open(record), asked(record))).collect()
    }

    /// An answer to each command of the batch, from what is stored.
    fn answers(
        &self,
        batch: &[Delivery<Asked>],
        changed: &BTreeMap<Uuid, Row>,
        around: &Surroundings,
    ) -> Vec<Outgoing> {
        let work = &around.works[&self.step.name];
        let mut answers: Vec<Outgoing> = Vec::new();
        for command in batch {
            let saga = subject(command);
            let Some(row) = changed.get(&saga).or_else(|| work.rows.get(&saga)) else { continue };
            let answer = self.answer(command, row);
            answers.extend(answer.filter(|answer| answers.iter().all(|other| other.id != answer.id)));
        }
        answers
    }

    /// The answer that a row gives: the same however often it is asked for.
    fn answer(&self, command: &Delivery<Asked>, row: &Row) -> Option<Outgoing> {
        let (saga, step) = (subject(command), self.step.name.as_str());
        let replies = &self.step.replies;
        let answer =
            |id: Uuid, topic: &str, event_type: &str, time: Option<DateTime<Utc>>, value: serde_json::Value| {
                let payload = value.to_string().into_bytes();
                Some(Outgoing::reply(command, id, (topic, event_type), &format!("/sim/{step}"), time?, payload))
            };
        if command.message == Asked::Undo {
            let Channel { topic, event_type } = &self.step.undo()?.reply;
            return answer(ids::undo_reply_id(saga, step), topic, event_type, row.undone_at, json!({ "undone": step }));
        }
        let id = ids::reply_id(saga, step);
        match row.state {
            State::Pending => None,
            State::Done | State::Undone => {
                let Channel { topic, event_type } = &replies.success;
                answer(id, topic, event_type, row.answered_at, json!({ "ref": format!("{step} of {saga}") }))
            }
            State::Declined | State::Refused => {
                let failure = replies.failure.as_ref()?;
                let value = json!({ "reason": format!("{:?}", row.state) });
                answer(id, &failure.topic, &failure.event_type, row.answered_at, value)
            }
        }
    }
}
