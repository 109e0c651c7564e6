//! Sending letters back. A letter is claimed by one statement, so however many ask, one sends it; the claim stores the
//! replay's id, so whoever sends it again after a crash sends the same.

mod deliver;
mod one;
mod statements;

use std::sync::Arc;

use futures_util::future::join_all;
use messaging::Producer;
use service_kit::Problem;
use sqlx::PgPool;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::config::ReplayConfig;
use crate::letter::decoded;
use crate::sagas::{Sagas, Unreachable, Word};
use crate::target::{FORBIDDEN, Targets};

pub use statements::{CHECK, CLAIM, EXPIRE, LOAD_CLAIMED, MARK_SENT, NOT_SENT, TAKE_OVER, UNCLAIM};

/// Letters sent, and held in memory, at once: each can be large. No more are claimed at once either, since a claim lasts
/// little longer than the broker may take to acknowledge them.
pub(crate) const AT_ONCE: usize = 20;

/// Why no cut letter goes back.
const TRUNCATED: &str = "truncated-letter";

/// A letter as it would be sent now.
#[derive(sqlx::FromRow)]
struct Checked {
    id: Uuid,
    topic: String,
    dlq_topic: String,
    source_format: String,
    state: String,
    truncated: bool,
    /// The Idempotency-Key of the request that claimed it.
    replay_key: Option<String>,
    headers: String,
    key: Option<Vec<u8>>,
}

/// Sends letters back.
pub(crate) struct Replays {
    pool: PgPool,
    producer: Producer,
    sagas: Arc<Sagas>,
    targets: Targets,
    config: ReplayConfig,
    /// Woken when there is something to follow.
    pub(crate) wake: Notify,
}

/// Who claims letters.
pub(crate) enum Claimant<'a> {
    Operator { actor: &'a str, key: Option<&'a str> },
    Campaign { id: Uuid, actor: &'a str, replica: Uuid },
}

impl Replays {
    pub(crate) fn new(pool: PgPool, producer: Producer, sagas: Arc<Sagas>, config: ReplayConfig) -> Self {
        let targets = Targets::new(config.foreign_targets.clone());
        Replays { pool, producer, sagas, targets, config, wake: Notify::new() }
    }

    pub(crate) fn sagas(&self) -> &Sagas {
        &self.sagas
    }

    pub(crate) fn targets(&self) -> &Targets {
        &self.targets
    }

    async fn checked(&self, ids: &[Uuid]) -> Result<Vec<Checked>, sqlx::Error> {
        sqlx::query_as(CHECK).bind(ids).fetch_all(&self.pool).await
    }

    /// Which of `ids` must not be sent, and why.
    pub(crate) async fn refusals(&self, ids: &[Uuid]) -> Result<Vec<(Uuid, String)>, CheckError> {
        let mut refused = Vec::new();
        let mut sagas = Vec::new();
        for letter in self.checked(ids).await? {
            if self.targets.refusal(&letter.topic, &letter.dlq_topic, &letter.source_format).is_some() {
                refused.push((letter.id, FORBIDDEN.to_owned()));
            } else if letter.truncated {
                refused.push((letter.id, TRUNCATED.to_owned()));
            } else if let Some(saga) = self.saga_of(&letter) {
                sagas.push((letter.id, saga));
            }
        }
        refused.extend(self.ended_among(&sagas).await?);
        Ok(refused)
    }

    /// The saga whose course the message belongs to. One that does not name it is about the order that is its key, which is
    /// also the saga's id.
    fn saga_of(&self, letter: &Checked) -> Option<Uuid> {
        if !self.sagas.is_course(&letter.topic) {
            return None;
        }
        let uuid = |bytes: &[u8]| Uuid::try_parse(std::str::from_utf8(bytes).ok()?.trim()).ok();
        let headers = decoded(&letter.headers).unwrap_or_default();
        let named = headers.iter().rev().find(|(name, _)| name == "ce_sagaid").and_then(|(_, value)| value.as_deref());
        named.and_then(uuid).or_else(|| uuid(letter.key.as_deref()?))
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
}

/// Why letters could not be judged.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckError {
    #[error("the database does not answer")]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    Orchestrator(#[from] Unreachable),
}

pub(crate) fn no_letter(id: Uuid) -> Problem {
    Problem::not_found(format!("there is no dead letter {id}"))
}

/// The letter is not in a state in which it can be acted on so.
pub(crate) fn wrong_state(id: Uuid, state: &str) -> Problem {
    let detail = format!(
        "the letter is {state}; only one that is NEW can be acted on, and one that is UNCONFIRMED be sent again or discarded"
    );
    Problem::conflict("wrong-state", detail).instance(format!("/api/dlq/messages/{id}"))
}

/// The message must not go where the letter says it came from.
pub(crate) fn forbidden(id: Uuid, why: &str) -> Problem {
    Problem::conflict(FORBIDDEN, why).instance(format!("/api/dlq/messages/{id}"))
}

/// The letter does not have its whole message.
pub(crate) fn truncated(id: Uuid) -> Problem {
    let detail = "the letter was too large for its topic or its index, and has only a part of its message";
    Problem::conflict(TRUNCATED, detail).instance(format!("/api/dlq/messages/{id}"))
}
