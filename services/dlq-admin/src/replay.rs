//! Sending letters back. A letter is claimed by one statement, so however many ask, one sends it; the claim stores the
//! replay's id, so whoever sends it again after a crash sends the same.

use std::sync::Arc;

use futures_util::future::join_all;
use messaging::{Placed, Producer, Record, SendError, failpoint};
use service_kit::db::detached;
use service_kit::{BoxError, Problem};
use sqlx::PgPool;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::audit::Act;
use crate::letter::{REPLAY_ID, decoded, is_of_letter};
use crate::sagas::{Sagas, Unreachable, Word, ended};
use crate::{GROUP, metrics};

/// Letters sent, and held in memory, at once: each can be large. No more are claimed at once either, since a claim lasts
/// little longer than the broker may take to acknowledge them.
pub(crate) const AT_ONCE: usize = 20;

/// What decides whether letters may be sent, as they would be sent.
pub const CHECK: &str = "
SELECT l.id, l.topic, l.state, l.truncated, l.replay_key, coalesce(e.headers, l.headers)::text
FROM letter l LEFT JOIN letter_edit e ON e.letter_id = l.id AND e.number = l.edit_number
WHERE l.id = ANY($1)";

/// Claims letters for an operator ($2, with the request's key $3), or for the campaign $4 while the replica $5 runs it.
/// The id of a replay follows from letter and number, in the form of a UUIDv8.
pub const CLAIM: &str = "
WITH claimed AS (
    UPDATE letter SET state = 'REPLAYING', state_at = now(), replay_number = replay_number + 1,
        replay_id = overlay(overlay(md5(id::text || ':' || (replay_number + 1)) PLACING '8' FROM 13) PLACING 'a' FROM 17)::uuid,
        replay_key = $3, sent_edit = edit_number, claimed_at = now(), sent_partition = NULL, sent_offset = NULL
    WHERE id = ANY($1) AND state = 'NEW' AND NOT truncated
      AND ($4::uuid IS NULL OR EXISTS (
        SELECT FROM campaign c WHERE c.id = $4 AND c.state = 'RUNNING' AND c.lease_owner = $5))
    RETURNING id, seq, replay_id, edit_number
), told AS (
    INSERT INTO letter_history (letter_id, event, actor, replay_id, detail)
    SELECT id, 'REPLAYING', $2, replay_id, 'by campaign ' || $4::uuid FROM claimed
), items AS (
    UPDATE campaign_item SET state = 'SENT' WHERE campaign_id = $4 AND letter_id IN (SELECT id FROM claimed)
), audited AS (
    INSERT INTO audit (actor, act, letter_id, arguments, result)
    SELECT $2, 'replay', id, json_build_object('replayId', replay_id, 'edit', edit_number), 'done'
    FROM claimed WHERE $4::uuid IS NULL
)
SELECT id FROM claimed ORDER BY seq";

/// The messages of claimed letters, edited or not, as the claim says.
pub const LOAD_CLAIMED: &str = "
SELECT l.id, l.replay_id, l.topic, CASE WHEN e.number IS NULL THEN l.key ELSE e.key END,
    CASE WHEN e.number IS NULL THEN l.payload ELSE e.payload END, coalesce(e.headers, l.headers)::text
FROM letter l LEFT JOIN letter_edit e ON e.letter_id = l.id AND e.number = l.sent_edit
WHERE l.id = ANY($1) AND l.state = 'REPLAYING'
ORDER BY l.seq";

/// The broker has them.
pub const MARK_SENT: &str = "
WITH sent AS (
    UPDATE letter l SET state = 'SENT', state_at = now(), sent_partition = t.partition, sent_offset = t.\"offset\"
    FROM UNNEST($1::uuid[], $2::uuid[], $3::integer[], $4::bigint[]) AS t (id, replay_id, partition, \"offset\")
    WHERE l.id = t.id AND l.replay_id = t.replay_id AND l.state = 'REPLAYING'
    RETURNING l.id, l.replay_id, l.sent_partition, l.sent_offset
)
INSERT INTO letter_history (letter_id, event, replay_id, detail)
SELECT id, 'SENT', replay_id, 'partition ' || sent_partition || ', offset ' || sent_offset FROM sent";

/// The broker will never take it: it is as before. A running campaign counts it as refused.
pub const UNCLAIM: &str = "
WITH back AS (
    UPDATE letter SET state = 'NEW', state_at = now(), replay_id = NULL, replay_key = NULL, claimed_at = NULL
    WHERE id = $1 AND replay_id = $2 AND state = 'REPLAYING'
    RETURNING id
), items AS (
    UPDATE campaign_item SET state = 'REFUSED', reason = 'not-sendable'
    WHERE state = 'SENT' AND letter_id IN (SELECT id FROM back)
      AND campaign_id IN (SELECT id FROM campaign WHERE state IN ('RUNNING', 'PAUSED'))
)
INSERT INTO letter_history (letter_id, event, replay_id, detail) SELECT id, 'NOT_SENT', $2, $3 FROM back";

/// Claims whose holder did not send in time; it may have died, before or after it sent.
pub const TAKE_OVER: &str = "
UPDATE letter SET claimed_at = now() WHERE id IN (
    SELECT id FROM letter WHERE state = 'REPLAYING' AND claimed_at < now() - $1 * interval '1 millisecond'
    ORDER BY claimed_at LIMIT $2 FOR UPDATE SKIP LOCKED)
RETURNING id";

type CheckRow = (Uuid, String, String, bool, Option<String>, String);
type ClaimedRow = (Uuid, Uuid, String, Option<Vec<u8>>, Option<Vec<u8>>, String);

/// Sends letters back.
pub(crate) struct Replays {
    pool: PgPool,
    producer: Producer,
    sagas: Arc<Sagas>,
    claim_ms: u64,
    /// Woken when there is something to follow.
    pub(crate) wake: Notify,
}

/// Who claims letters.
pub(crate) enum Claimant<'a> {
    Operator { actor: &'a str, key: Option<&'a str> },
    Campaign { id: Uuid, actor: &'a str, replica: Uuid },
}

impl Replays {
    pub(crate) fn new(pool: PgPool, producer: Producer, sagas: Arc<Sagas>, claim_ms: u64) -> Self {
        Replays { pool, producer, sagas, claim_ms, wake: Notify::new() }
    }

    pub(crate) fn sagas(&self) -> &Sagas {
        &self.sagas
    }

    /// Sends one letter for an operator. Runs to its end also when the client goes away. A second call is refused; with
    /// the key of the first it changes nothing and succeeds.
    pub(crate) async fn one(self: Arc<Self>, id: Uuid, actor: String, key: Option<String>) -> Result<(), Problem> {
        detached(async move { self.one_for(id, &actor, key.as_deref()).await }).await
    }

    async fn one_for(&self, id: Uuid, actor: &str, key: Option<&str>) -> Result<(), Problem> {
        let act = Act::on_letter("replay", actor, id, serde_json::json!({ "idempotencyKey": key }));
        let rows: Vec<CheckRow> = sqlx::query_as(CHECK).bind([id]).fetch_all(&self.pool).await?;
        let Some((_, topic, state, truncated, claimed_with, headers)) = rows.into_iter().next() else {
            return Err(act.refused(&self.pool, no_letter(id)).await);
        };
        if key.is_some() && claimed_with.as_deref() == key && state != "NEW" {
            return Ok(());
        }
        if let Some(problem) = unsendable(id, &state, truncated) {
            return Err(act.refused(&self.pool, problem).await);
        }
        if let Some(saga) = self.saga_of(&topic, &headers) {
            match self.sagas.ask(saga).await {
                Ok(Word::Open) => {}
                Ok(Word::Ended(saga)) => return Err(act.refused(&self.pool, ended(id, saga)).await),
                Err(error) => return Err(act.failed(&self.pool, error.into()).await),
            }
        }
        let claimed = self.claim(&[id], &Claimant::Operator { actor, key }).await?;
        if claimed.is_empty() {
            // Somebody was faster.
            return Err(act.refused(&self.pool, wrong_state(id, "on its way by another request")).await);
        }
        self.wake.notify_waiters();
        let mut refused = self.deliver(&claimed, "sent").await.map_err(internal)?;
        match refused.pop() {
            Some((_, why)) => Err(act.failed(&self.pool, not_sendable(id, &why)).await),
            None => Ok(()),
        }
    }

    /// The saga whose course the message belongs to.
    fn saga_of(&self, topic: &str, headers: &str) -> Option<Uuid> {
        if !self.sagas.is_course(topic) {
            return None;
        }
        let headers = decoded(headers).ok()?;
        let (_, value) = headers.iter().rev().find(|(name, _)| name == "ce_sagaid")?;
        Uuid::try_parse(std::str::from_utf8(value.as_deref()?).ok()?).ok()
    }

    /// Which of `ids` must not be sent, and why.
    pub(crate) async fn refusals(&self, ids: &[Uuid]) -> Result<Vec<(Uuid, String)>, CheckError> {
        let rows: Vec<CheckRow> = sqlx::query_as(CHECK).bind(ids).fetch_all(&self.pool).await?;
        let mut refused = Vec::new();
        let mut sagas = Vec::new();
        for (id, topic, _, truncated, _, headers) in rows {
            if truncated {
                refused.push((id, "truncated-letter".to_owned()));
            } else if let Some(saga) = self.saga_of(&topic, &headers) {
                sagas.push((id, saga));
            }
        }
        refused.extend(self.ended_among(&sagas).await?);
        Ok(refused)
    }

    /// Those of `(letter, saga)` whose saga has ended.
    pub(crate) async fn ended_among(&self, sagas: &[(Uuid, Uuid)]) -> Result<Vec<(Uuid, String)>, Unreachable> {
        const QUESTIONS: usize = 8;
        let mut ended = Vec::new();
        for part in sagas.chunks(QUESTIONS) {
            let answers = join_all(part.iter().map(|(_, saga)| self.sagas.ask(*saga))).await;
            for ((letter, _), answer) in part.iter().zip(answers) {
                if let Word::Ended(saga) = answer? {
                    ended.push((*letter, format!("saga-ended: {}", saga["state"].as_str().unwrap_or_default())));
                }
            }
        }
        Ok(ended)
    }

    /// Claims those of `ids` that nobody has claimed, discarded or replayed before.
    pub(crate) async fn claim(&self, ids: &[Uuid], by: &Claimant<'_>) -> Result<Vec<Uuid>, sqlx::Error> {
        let (actor, key, campaign, replica) = match by {
            Claimant::Operator { actor, key } => (*actor, *key, None, None),
            Claimant::Campaign { id, actor, replica } => (*actor, None, Some(*id), Some(*replica)),
        };
        sqlx::query_scalar(CLAIM)
            .bind(ids)
            .bind(actor)
            .bind(key)
            .bind(campaign)
            .bind(replica)
            .fetch_all(&self.pool)
            .await
    }

    /// Sends claimed letters and marks them. Gives those that the broker will never take, which are claimed no more. One
    /// whose outcome is unknown stays claimed, and is sent again when its claim has run out.
    pub(crate) async fn deliver(&self, ids: &[Uuid], result: &str) -> Result<Vec<(Uuid, String)>, BoxError> {
        let mut refused = Vec::new();
        for part in ids.chunks(AT_ONCE) {
            let rows: Vec<ClaimedRow> = sqlx::query_as(LOAD_CLAIMED).bind(part).fetch_all(&self.pool).await?;
            let messages = rows.into_iter().map(message).collect::<Result<Vec<_>, _>>()?;
            failpoint::hit("replay-before-produce", GROUP);
            // In their order: all of them are queued before the first is waited for.
            let outcomes = join_all(messages.iter().map(|(_, _, record)| self.producer.send(record))).await;
            failpoint::hit("replay-after-produce", GROUP);
            let mut sent: Vec<(Uuid, Uuid, Placed)> = Vec::new();
            for ((id, replay, record), outcome) in messages.iter().zip(outcomes) {
                match outcome {
                    Ok(place) => sent.push((*id, *replay, place)),
                    Err(SendError::Refused(why)) => {
                        let why = format!("{} does not take it: {why}", record.topic);
                        sqlx::query(UNCLAIM).bind(id).bind(replay).bind(&why).execute(&self.pool).await?;
                        metrics::REPLAYS.with_label_values(&["not-sent"]).inc();
                        refused.push((*id, why));
                    }
                    Err(SendError::Unknown(error)) => {
                        tracing::warn!(letter = %id, %error, "a replay was not acknowledged: it is sent again later");
                    }
                }
            }
            self.mark(&sent).await?;
            metrics::REPLAYS.with_label_values(&[result]).inc_by(sent.len() as u64);
        }
        Ok(refused)
    }

    async fn mark(&self, sent: &[(Uuid, Uuid, Placed)]) -> Result<(), sqlx::Error> {
        if sent.is_empty() {
            return Ok(());
        }
        sqlx::query(MARK_SENT)
            .bind(sent.iter().map(|(id, ..)| *id).collect::<Vec<_>>())
            .bind(sent.iter().map(|(_, replay, _)| *replay).collect::<Vec<_>>())
            .bind(sent.iter().map(|(.., place)| place.partition).collect::<Vec<_>>())
            .bind(sent.iter().map(|(.., place)| place.offset).collect::<Vec<_>>())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Sends again what was claimed and not marked in time.
    pub(crate) async fn recover(&self) -> Result<(), BoxError> {
        let patience = i64::try_from(self.claim_ms).unwrap_or(i64::MAX);
        let ids: Vec<Uuid> =
            sqlx::query_scalar(TAKE_OVER).bind(patience as f64).bind(AT_ONCE as i64).fetch_all(&self.pool).await?;
        if !ids.is_empty() {
            tracing::warn!(letters = ids.len(), "claimed letters were not marked as sent: they are sent again");
            self.deliver(&ids, "sent-again").await?;
        }
        Ok(())
    }
}

/// Why letters could not be judged.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckError {
    #[error("the database does not answer")]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    Orchestrator(#[from] Unreachable),
}

/// The message of a claimed letter: as it was, or was edited, without what was added with the letter, and with the id of
/// its replay.
fn message((id, replay, topic, key, payload, headers): ClaimedRow) -> Result<(Uuid, Uuid, Record), serde_json::Error> {
    let mut headers = decoded(&headers)?;
    headers.retain(|(name, _)| !is_of_letter(name));
    headers.push((REPLAY_ID.to_owned(), Some(replay.to_string().into_bytes())));
    let record = Record { topic, partition: -1, offset: -1, timestamp_ms: None, key, payload, headers };
    Ok((id, replay, record))
}

pub(crate) fn no_letter(id: Uuid) -> Problem {
    Problem::not_found(format!("there is no dead letter {id}"))
}

/// Only a new letter can be acted on.
pub(crate) fn wrong_state(id: Uuid, state: &str) -> Problem {
    Problem::conflict("wrong-state", format!("the letter is {state}; only one that is NEW can be acted on"))
        .instance(format!("/api/dlq/messages/{id}"))
}

fn unsendable(id: Uuid, state: &str, truncated: bool) -> Option<Problem> {
    if state != "NEW" {
        return Some(wrong_state(id, state));
    }
    truncated.then(|| {
        let detail = "the letter was too large for its topic and has only the start of its message";
        Problem::conflict("truncated-letter", detail).instance(format!("/api/dlq/messages/{id}"))
    })
}

fn not_sendable(id: Uuid, why: &str) -> Problem {
    Problem::new(axum::http::StatusCode::UNPROCESSABLE_ENTITY, "not-sendable", "The message cannot be sent")
        .detail(why)
        .instance(format!("/api/dlq/messages/{id}"))
}

fn internal(error: BoxError) -> Problem {
    match error.downcast::<sqlx::Error>() {
        Ok(error) => (*error).into(),
        Err(error) => Problem::internal(error),
    }
}
