//! Whether an instance is what it must be, by what is stored: its timeline, its messages, its effects.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context;
use messaging::Record;
use saga::definition::{Compensation, Step};
use saga::{Definition, TimelineEntry, ids, legal_path};
use serde_json::Value;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor};
use uuid::Uuid;

use super::cells::End;
use super::samples::{Effect, Sample};
use super::stage::{Stage, until};

/// From the saga's end to its event on the topic.
const TOLD_WITHIN: Duration = Duration::from_secs(20);

/// What must be true of an instance.
pub(super) struct Expected<'c> {
    pub(super) definition: &'c Definition,
    pub(super) saga: Uuid,
    pub(super) end: End,
    /// How often one step took effect and was undone; of the others that follows from the end.
    pub(super) aimed: Option<(&'c str, (i64, i64))>,
}

/// Everything about the instance that is not as it must be.
///
/// # Errors
/// When what is stored cannot be read.
pub(super) async fn judge(stage: &Stage, expected: &Expected<'_>, sample: &Sample) -> anyhow::Result<Vec<String>> {
    let mut wrong = Vec::new();
    match stage.saga(expected.saga).await {
        Some(saga) => timeline(expected, &saga, &mut wrong),
        None => wrong.push("I1: there is no such saga".to_owned()),
    }
    ends(stage, expected, &mut wrong).await;
    for step in expected.definition.steps() {
        messages(stage, expected.saga, step, &mut wrong);
        if let Some(effect) = sample.effects.get(&step.name) {
            let found = count(stage, effect, expected.saga).await?;
            wrong.extend(effects(expected, step, found));
        }
    }
    Ok(wrong)
}

/// I8, and the end that I1 asks for.
fn timeline(expected: &Expected<'_>, saga: &Value, wrong: &mut Vec<String>) {
    let state = saga["state"].as_str().unwrap_or_default();
    if state != expected.end.state() {
        wrong.push(format!("I1: it is {state} and must be {}", expected.end.state()));
    }
    let entries: Result<Vec<TimelineEntry>, _> = serde_json::from_value(saga["timeline"].clone());
    let path = entries.map_err(|error| error.to_string()).and_then(|entries| {
        legal_path(expected.definition, expected.saga, &entries).map_err(|error| error.to_string())
    });
    match path {
        Ok(end) if end.as_str() == state => {}
        Ok(end) => wrong.push(format!("I8: it is {state} but its timeline leads to {end}")),
        Err(error) => wrong.push(format!("I8: {error}")),
    }
}

/// The world was told of this end and of no other.
async fn ends(stage: &Stage, expected: &Expected<'_>, wrong: &mut Vec<String>) {
    let ends = expected.definition.ends();
    for (end, outlet) in
        [(End::Completed, &ends.completed), (End::Compensated, &ends.cancelled), (End::Parked, &ends.parked)]
    {
        let told = || stage.journal.on(&outlet.topic, expected.saga).first().map(drop);
        if end != expected.end && told().is_some() {
            wrong.push(format!("I1: it was told on {}", outlet.topic));
        } else if end == expected.end && until(TOLD_WITHIN, async || told()).await.is_none() {
            wrong.push(format!("I1: nobody was told on {}", outlet.topic));
        }
    }
}

/// I3 and I7 on the topics: a message that comes again is the same message, and an answer is yes or no.
fn messages(stage: &Stage, saga: Uuid, step: &Step, wrong: &mut Vec<String>) {
    let on = |topic: &str| stage.journal.on(topic, saga);
    let (done, refused) = (
        on(&step.replies.success.topic),
        step.replies.failure.as_ref().map(|failure| on(&failure.topic)).unwrap_or_default(),
    );
    if !done.is_empty() && !refused.is_empty() {
        wrong.push(format!("I3: {} was done and refused", step.name));
    }
    let mut all = vec![(ids::command_id(saga, &step.name), on(&step.command.topic))];
    all.push((ids::reply_id(saga, &step.name), done));
    all.push((ids::reply_id(saga, &step.name), refused));
    if let Some(undo) = step.undo() {
        all.push((ids::undo_id(saga, &step.name), on(&undo.command.topic)));
        all.push((ids::undo_reply_id(saga, &step.name), on(&undo.reply.topic)));
    }
    for (id, records) in all {
        wrong.extend(repetitions(id, &records));
    }
}

/// Whether `records` are one message, as often as it was sent.
fn repetitions(id: Uuid, records: &[Record]) -> Option<String> {
    let topic = &records.first()?.topic;
    let id = id.to_string();
    if records.iter().any(|record| record.header("ce_id") != Some(&id)) {
        return Some(format!("I7: a message on {topic} has not the id {id}"));
    }
    let facts: BTreeSet<_> = records.iter().map(|record| (&record.payload, record.header("ce_time"))).collect();
    (facts.len() > 1).then(|| format!("I7: {topic} says {} different things under one id", facts.len()))
}

/// I3 in the participant's database.
fn effects(expected: &Expected<'_>, step: &Step, (done, undone): (i64, i64)) -> Option<String> {
    let aimed = expected.aimed.filter(|(name, _)| *name == step.name).map(|(_, effects)| effects);
    let is_right = match (aimed, expected.end) {
        (Some(effects), _) => effects == (done, undone),
        (None, End::Completed) => (done, undone) == (1, 0),
        (None, End::Compensated) if step.compensation == Some(Compensation::NothingToUndo) => done <= 1,
        (None, End::Compensated) => done <= 1 && undone == done,
        (None, End::Parked) => done <= 1 && undone <= done,
    };
    (!is_right).then(|| format!("I3: {} took effect {done} times and was undone {undone} times", step.name))
}

async fn count(stage: &Stage, effect: &Effect, saga: Uuid) -> anyhow::Result<(i64, i64)> {
    let target = &stage.stand.target;
    let url = format!("postgres://postgres@{}/{}{}", target.postgres, target.database_prefix, effect.database);
    let options: PgConnectOptions = url.parse()?;
    let connection = options.application_name("symphony certify").connect().await;
    let mut connection: PgConnection = connection.with_context(|| format!("database {}", effect.database))?;
    connection.execute("SET default_transaction_read_only = on").await?;
    let mut numbers = BTreeMap::from([("done", 0), ("undone", 0)]);
    for (name, sql) in [("done", Some(&effect.done)), ("undone", effect.undone.as_ref())] {
        let Some(sql) = sql else { continue };
        let number = sqlx::query_scalar(AssertSqlSafe(sql.as_str())).bind(saga).fetch_one(&mut connection).await;
        numbers.insert(name, number.with_context(|| format!("{name}: {sql}"))?);
    }
    Ok((numbers["done"], numbers["undone"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: Uuid, payload: &str, time: &str) -> Record {
        let header = |name: &str, value: String| (name.to_owned(), Some(value.into_bytes()));
        Record {
            topic: "a.done".to_owned(),
            partition: 0,
            offset: 0,
            timestamp_ms: None,
            key: None,
            payload: Some(payload.as_bytes().to_vec()),
            headers: vec![header("ce_id", id.to_string()), header("ce_time", time.to_owned())],
        }
    }

    #[test]
    fn a_repeated_message_says_the_same_under_the_same_id() {
        let (id, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let first = record(id, "{}", "2026-11-21T10:00:00Z");
        assert_eq!(repetitions(id, &[first.clone(), first.clone()]), None);
        assert_eq!(repetitions(id, &[]), None);
        for second in [record(id, "{\"a\":1}", "2026-11-21T10:00:00Z"), record(id, "{}", "2026-11-21T10:00:01Z")] {
            assert!(repetitions(id, &[first.clone(), second]).expect("two things").contains("2 different"));
        }
        assert!(repetitions(id, &[record(other, "{}", "")]).expect("a wrong id").contains("has not the id"));
    }
}
