//! The end of a soak: the last orders, the drain, and the proof.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use messaging::{Record, admin, dead_letter};
use orders::topics::ALL;
use serde::Serialize;
use sqlx::Connection as _;
use uuid::Uuid;

use super::faults::{self, MARK, Scene};
use super::stand::until;
use crate::audit::{self, Target, audit};

/// Orders after the last fault, all of which must be completed.
pub(super) const LAST: usize = 50;
/// For the answer to every request.
const ANSWERS: Duration = Duration::from_secs(180);
/// Without the end of one more order, nothing more is expected. An order that was lost twice is published again after
/// two minutes and again after four.
const PATIENCE: Duration = Duration::from_secs(420);
/// Letters that are told.
const TOLD: usize = 20;
/// The header of a record that an injected fault has changed; `service_kit::chaos::HEADER`.
const CHANGED: &str = "chaos-fault";
/// The reason of a letter that an injected error has made.
const INJECTED: &str = "injected-error";
/// Reasons of letters whose messages could be read. A fault that has changed a message so that it can't be is no excuse for
/// these: one that was only put behind others is as good as any.
const READABLE: [&str; 3] = ["database-error", "handler-error", "process-death"];
const STATUSES: &str = "SELECT id, status FROM orders";
const OPEN: &str = "SELECT count(*) FROM orders WHERE status = 'PENDING'";

/// What was found in the end.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Ending {
    /// Of the last orders, how many were completed.
    pub(super) last_completed: usize,
    /// Orders by status.
    pub(super) statuses: BTreeMap<String, usize>,
    /// Good orders that were cancelled all the same, after all attempts of a step: legal, and worth a look.
    pub(super) good_cancelled: usize,
    /// Accepted orders that are in no table.
    pub(super) missing: Vec<Uuid>,
    /// Orders that have not ended.
    pub(super) open: usize,
    /// Dead letters, and how many of them an injected fault explains.
    pub(super) letters: usize,
    /// As above.
    pub(super) letters_explained: usize,
    /// Some of the others.
    pub(super) letters_unexplained: Vec<String>,
    /// I1 to I8.
    pub(super) audit: audit::Report,
    /// What must never be answered, and was.
    pub(super) wrong_answers: Vec<String>,
    /// Seconds from the last order until none was open.
    pub(super) drain_seconds: f64,
}

/// Heals everything, places the last orders, waits until all have ended, and audits.
pub(super) async fn finish(scene: Scene<'_>) -> anyhow::Result<Ending> {
    let Scene { stand, load } = scene;
    until("everything to be healed", ANSWERS, async || faults::heal(stand).await.ok()).await?;
    eprintln!("everything is healed; the last {LAST} orders");
    load.calm();
    let healed = Instant::now();
    until("the last orders to be accepted", ANSWERS, async || {
        (load.accepted_since(healed, LAST).len() == LAST).then_some(())
    })
    .await?;
    load.stop(ANSWERS).await?;
    let last: Vec<Uuid> =
        load.accepted().iter().rev().filter(|order| order.good).take(LAST).map(|one| one.id).collect();

    eprintln!("waiting until every order has ended");
    let since = Instant::now();
    drain(scene).await?;
    let drain_seconds = since.elapsed().as_secs_f64();

    let mut connection = stand.database("orders").await?;
    let rows: Vec<(Uuid, String)> = sqlx::query_as(STATUSES).fetch_all(&mut connection).await?;
    connection.close().await?;
    let rows: HashMap<Uuid, String> = rows.into_iter().collect();
    let mut statuses = BTreeMap::new();
    for status in rows.values() {
        *statuses.entry(status.clone()).or_default() += 1;
    }
    let is = |id: &Uuid, status: &str| rows.get(id).is_some_and(|found| found == status);
    let accepted = load.accepted();

    eprintln!("auditing");
    let target = Target {
        postgres: format!("127.0.0.1:{}", stand.endpoints.ports.postgres),
        database_prefix: String::new(),
        kafka: stand.endpoints.kafka(),
        topic_prefix: String::new(),
        settle_within: Duration::from_secs(60),
        ready_since: None,
    };
    let report = audit(&target).await.context("the audit")?;
    let (letters, unexplained) = letters(&target.kafka).await?;
    Ok(Ending {
        last_completed: last.iter().filter(|id| is(id, "COMPLETED")).count(),
        good_cancelled: accepted.iter().filter(|order| order.good && is(&order.id, "CANCELLED")).count(),
        missing: accepted.iter().map(|order| order.id).filter(|id| !rows.contains_key(id)).take(TOLD).collect(),
        open: rows.values().filter(|status| *status == "PENDING").count(),
        statuses,
        letters,
        letters_explained: letters - unexplained.len(),
        letters_unexplained: unexplained.into_iter().take(TOLD).collect(),
        audit: report,
        wrong_answers: load.wrong(),
        drain_seconds,
    })
}

/// Waits until no order is PENDING, or none has ended for as long as the patience lasts.
async fn drain(scene: Scene<'_>) -> anyhow::Result<()> {
    let (mut fewest, mut progress) = (i64::MAX, Instant::now());
    loop {
        match scene.stand.value::<i64>("orders", OPEN).await {
            Ok(0) => return Ok(()),
            Ok(open) if open < fewest => (fewest, progress) = (open, Instant::now()),
            Err(error) if progress.elapsed() > PATIENCE => return Err(error),
            // The audit says what is wrong with them.
            _ if progress.elapsed() > PATIENCE => return Ok(()),
            _ => {}
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// The number of dead letters, and those that no injected fault explains.
async fn letters(kafka: &str) -> anyhow::Result<(usize, Vec<String>)> {
    let (mut count, mut unexplained) = (0, Vec::new());
    for topic in ALL {
        let name = dead_letter::topic_of(topic.name);
        for letter in admin::read_topic(kafka, &name).await.with_context(|| name.clone())? {
            count += 1;
            if !is_explained(&letter) {
                let reason = letter.header("dlq-reason").unwrap_or("?");
                let group = letter.header("dlq-consumer-group").unwrap_or("?");
                let error = letter.header("dlq-error").unwrap_or("?");
                let place = format!("{name}/{}@{}", letter.partition, letter.offset);
                unexplained.push(format!("{place}: {group} gave it up as {reason}: {error}"));
            }
        }
    }
    Ok((count, unexplained))
}

/// Whether an injected fault explains that there is this letter.
fn is_explained(letter: &Record) -> bool {
    let reason = letter.header("dlq-reason").unwrap_or_default();
    let was_changed = letter.header(CHANGED).is_some() && !READABLE.contains(&reason);
    letter.header(MARK).is_some() || was_changed || reason == INJECTED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_is_explained_by_what_made_it_unreadable_and_not_by_what_only_moved_its_message() {
        let letter = |headers: &[(&str, &str)]| {
            let header = |(name, value): &(&str, &str)| ((*name).to_owned(), Some(value.as_bytes().to_vec()));
            Record { headers: headers.iter().map(header).collect(), ..Record::unsent("t.dlq", None, None) }
        };
        for explained in [
            &[("dlq-reason", "invalid-json"), (CHANGED, "a fault")][..],
            &[("dlq-reason", "handler-error"), (MARK, "1")],
            &[("dlq-reason", INJECTED)],
        ] {
            assert!(is_explained(&letter(explained)), "{explained:?}");
        }
        for unexplained in [
            &[("dlq-reason", "invalid-json")][..],
            &[("dlq-reason", "handler-error"), (CHANGED, "a fault")],
            &[("dlq-reason", "process-death"), (CHANGED, "a fault")],
            &[],
        ] {
            assert!(!is_explained(&letter(unexplained)), "{unexplained:?}");
        }
    }
}
