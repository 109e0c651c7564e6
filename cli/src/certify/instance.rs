//! The instance of a saga that plays one cell, and what is known of its fault.

use std::time::Duration;

use chrono::{DateTime, Utc};
use messaging::Record;
use reqwest::Method;
use saga::{EntryKind, TimelineEntry, ids};
use serde_json::{Value, json};
use uuid::Uuid;

use super::cells::Cell;
use super::chaos::Planned;
use super::stage::{Stage, until};
use crate::api::problem;

/// What needs no deadline of the saga to pass comes within this time, also while other processes are started again.
pub(super) const SOON: Duration = Duration::from_secs(60);
/// For an answer to a message that a fault may still have swallowed when it was sent.
const ANSWER: Duration = Duration::from_secs(5);
const TRIES: u32 = 6;

/// A cell being played.
pub(super) struct Run<'s> {
    pub(super) stage: &'s Stage,
    pub(super) cell: &'s Cell,
    pub(super) saga: Uuid,
    /// The faults of the cell, with their ids.
    pub(super) faults: Vec<(Uuid, Planned)>,
    /// The service that reads the step's commands.
    pub(super) participant: String,
    /// The process that is to die.
    pub(super) process: Option<u32>,
    /// Facts that together prove that the fault happened.
    pub(super) facts: Vec<String>,
    /// What would have to be known besides.
    pub(super) missing: Vec<String>,
}

impl<'s> Run<'s> {
    /// Nothing has happened yet.
    pub(super) fn new(stage: &'s Stage, cell: &'s Cell, saga: Uuid, participant: &str) -> Self {
        let participant = participant.to_owned();
        let (faults, facts, missing) = (Vec::new(), Vec::new(), Vec::new());
        Self { stage, cell, saga, faults, participant, process: None, facts, missing }
    }

    /// A part of the proof: it holds, or the cell is void for want of it.
    pub(super) fn prove(&mut self, holds: bool, fact: impl Into<String>) {
        if holds { self.facts.push(fact.into()) } else { self.missing.push(fact.into()) }
    }

    /// Waits until the cell's fault number `index` has hit.
    pub(super) async fn hit(&mut self, index: usize) {
        let (id, planned) = self.faults[index].clone();
        let name = planned.fault["type"].as_str().unwrap_or_default();
        let found = until(SOON, async || Some(self.stage.chaos.hits(id)).filter(|(hits, _)| *hits > 0)).await;
        let fact = match &found {
            Some((hits, services)) => {
                format!("{name} has hit {hits} messages of {} in {}", planned.topic, services.join(", "))
            }
            None => format!("{name} has hit no message of {}", planned.topic),
        };
        self.prove(found.is_some(), fact);
    }

    /// Ends the cell's fault number `index`.
    pub(super) async fn end(&self, index: usize) -> anyhow::Result<()> {
        self.stage.chaos.end(self.faults[index].0).await
    }

    /// The time in which every attempt of the step is over, and all that follows from that.
    pub(super) fn patience(&self) -> Duration {
        self.cell.step().deadline * self.cell.step().attempts + SOON
    }

    /// Waits until the saga rests. Whether it rests where it must is judged later.
    pub(super) async fn rests(&self) {
        self.stage.rests(self.saga, self.patience()).await;
    }

    /// Waits for a transition of the step, and says when it was stored.
    pub(super) async fn transition(&mut self, kind: EntryKind) -> Option<DateTime<Utc>> {
        let step = &self.cell.step().name;
        let at = until(self.patience(), async || {
            let saga = self.stage.saga(self.saga).await?;
            let entries: Vec<TimelineEntry> = serde_json::from_value(saga["timeline"].clone()).ok()?;
            let entry = entries.into_iter().find(|entry| entry.kind == kind && entry.step.as_ref() == Some(step))?;
            Some(entry.at)
        });
        let at = at.await;
        let when = at.map_or_else(|| "is not in the timeline".to_owned(), |at| format!("at {at}"));
        self.prove(at.is_some(), format!("{kind} {when}"));
        at
    }

    /// The answers to the step's command.
    pub(super) fn replies(&self) -> Vec<Record> {
        let replies = &self.cell.step().replies;
        let topics = [Some(&replies.success.topic), replies.failure.as_ref().map(|failure| &failure.topic)];
        self.with_id(topics.into_iter().flatten(), ids::reply_id(self.saga, &self.cell.step().name))
    }

    /// The answers to the step's undo.
    pub(super) fn undo_replies(&self) -> Vec<Record> {
        let topic = self.cell.step().undo().map(|undo| &undo.reply.topic);
        self.with_id(topic.into_iter(), ids::undo_reply_id(self.saga, &self.cell.step().name))
    }

    fn with_id<'t>(&self, topics: impl Iterator<Item = &'t String>, id: Uuid) -> Vec<Record> {
        let id = id.to_string();
        let records = topics.flat_map(|topic| self.stage.journal.on(topic, self.saga));
        let mut records: Vec<Record> = records.filter(|record| record.header("ce_id") == Some(&id)).collect();
        records.sort_by_key(|record| record.timestamp_ms);
        records
    }

    /// Waits until the participant is done with the first message of `topic` and all that was read with it. What it
    /// answers from then on, it answers to something else.
    pub(super) async fn is_done_with(&mut self, topic: &str) {
        let first = until(SOON, async || self.stage.journal.on(topic, self.saga).into_iter().next()).await;
        let done = match &first {
            Some(first) => self.stage.is_committed(&self.participant, first, SOON).await,
            None => false,
        };
        let fact = format!("{} had committed the offset of {topic} before it was sent again", self.participant);
        self.prove(done, fact);
    }

    /// Sends the first message of `topic` again, until one of `answers` is younger than that; gives it.
    pub(super) async fn send_again(
        &mut self,
        topic: &str,
        answers: impl Fn(&Self) -> Vec<Record>,
    ) -> anyhow::Result<Option<Record>> {
        let since = Utc::now().timestamp_millis();
        let is_younger = |record: &Record| record.timestamp_ms.is_some_and(|at| at >= since);
        for _ in 0..TRIES {
            self.stage.send_again(topic, self.saga).await?;
            let answer = until(ANSWER, async || answers(self).into_iter().find(&is_younger)).await;
            if let Some(answer) = answer {
                let copies = self.stage.journal.on(topic, self.saga).len();
                let answered =
                    format!("{topic} is there {copies} times, and the last was answered on {}", answer.topic);
                self.prove(true, answered);
                return Ok(Some(answer));
            }
        }
        self.prove(false, format!("{topic}, sent again, was not answered"));
        Ok(None)
    }

    /// Has an operator turn the saga back.
    pub(super) async fn turn_back(&mut self) -> anyhow::Result<()> {
        let path = format!("/api/sagas/{}/compensate", self.saga);
        let request = self.stage.stand.api.request(Method::POST, "orchestrator", &path)?.timeout(SOON);
        let response = request.header("X-Actor", "certify").json(&json!({ "reason": "certify" })).send().await?;
        let (status, body) = (response.status(), response.text().await?);
        let told = if status.is_success() { String::new() } else { format!(": {status} {}", problem(&body)) };
        self.prove(status.is_success(), format!("an operator turned the saga back{told}"));
        Ok(())
    }

    /// The saga's state now, for the report.
    pub(super) async fn state(&self) -> Option<String> {
        let saga: Value = self.stage.saga(self.saga).await?;
        saga["state"].as_str().map(str::to_owned)
    }
}

/// When the broker got `record`, or its sender sent it.
pub(super) fn sent_at(record: &Record) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_millis(record.timestamp_ms?)
}

/// When the fact in `record` was stored.
pub(super) fn stored_at(record: &Record) -> Option<DateTime<Utc>> {
    record.header("ce_time")?.parse().ok()
}
