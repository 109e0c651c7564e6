use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use serde_json::json;
use service_kit::db::detached;
use service_kit::{BoxError, Problem};
use tokio::time::Instant;
use uuid::Uuid;

use super::{Checked, Claimant, NOT_SENT, Replays, forbidden, no_letter, truncated, wrong_state};
use crate::audit::Act;
use crate::sagas::{Word, ended};

/// How often a request looks whether another one, whose answer it shares, is done.
const LOOK: Duration = Duration::from_millis(50);

impl Checked {
    /// Whether a request with this key asks for what another one is doing or has done: the same request again, or, without
    /// a key, anybody's while the message is on its way.
    fn is_answered(&self, key: Option<&str>) -> bool {
        match key {
            Some(_) => self.state != "NEW" && self.replay_key.as_deref() == key,
            None => matches!(self.state.as_str(), "REPLAYING" | "SENT"),
        }
    }
}

impl Replays {
    /// Sends one letter for an operator. Runs to its end also when the client goes away. The same call again, or at once
    /// from another client, sends nothing and gets the answer of the first.
    pub(crate) async fn one(self: Arc<Self>, id: Uuid, actor: String, key: Option<String>) -> Result<(), Problem> {
        detached(async move { self.one_for(id, &actor, key.as_deref()).await }).await
    }

    async fn one_for(&self, id: Uuid, actor: &str, key: Option<&str>) -> Result<(), Problem> {
        let act = Act::on_letter("replay", actor, id, json!({ "idempotencyKey": key }));
        let Some(letter) = self.checked(&[id]).await?.pop() else {
            return Err(act.refused(&self.pool, no_letter(id)).await);
        };
        if letter.is_answered(key) {
            return self.shared(&act, id).await;
        }
        if let Some(problem) = self.unsendable(&letter) {
            return Err(act.refused(&self.pool, problem).await);
        }
        if let Some(saga) = self.saga_of(&letter) {
            match self.sagas.ask(saga).await {
                Ok(Word::Open) => {}
                Ok(Word::Ended(saga)) => return Err(act.refused(&self.pool, ended(id, saga)).await),
                Err(error) => return Err(act.failed(&self.pool, error.into()).await),
            }
        }
        let claimed = self.claim(&[id], &Claimant::Operator { actor, key }).await?;
        if claimed.is_empty() {
            // Somebody was faster.
            let Some(letter) = self.checked(&[id]).await?.pop() else {
                return Err(act.refused(&self.pool, no_letter(id)).await);
            };
            if letter.is_answered(key) {
                return self.shared(&act, id).await;
            }
            return Err(act.refused(&self.pool, wrong_state(id, &letter.state)).await);
        }
        self.wake.notify_waiters();
        let mut refused = self.deliver(&claimed, "sent").await.map_err(internal)?;
        match refused.pop() {
            Some((_, why)) => Err(act.failed(&self.pool, not_sendable(id, &why)).await),
            None => Ok(()),
        }
    }

    fn unsendable(&self, letter: &Checked) -> Option<Problem> {
        if !matches!(letter.state.as_str(), "NEW" | "UNCONFIRMED") {
            return Some(wrong_state(letter.id, &letter.state));
        }
        let refusal = self.targets.refusal(&letter.topic, &letter.dlq_topic, &letter.source_format);
        if let Some(why) = refusal {
            return Some(forbidden(letter.id, &why));
        }
        letter.truncated.then(|| truncated(letter.id))
    }

    /// The answer of the request that has claimed the letter, as soon as there is one. If that request died, the letter is
    /// on its way all the same.
    async fn shared(&self, act: &Act, id: Uuid) -> Result<(), Problem> {
        let deadline = Instant::now() + Duration::from_millis(self.config.claim_ms);
        loop {
            let Some(letter) = self.checked(&[id]).await?.pop() else {
                return Err(act.refused(&self.pool, no_letter(id)).await);
            };
            if letter.state == "NEW" {
                let why: Option<Option<String>> =
                    sqlx::query_scalar(NOT_SENT).bind(id).fetch_optional(&self.pool).await?;
                let why = why.flatten().unwrap_or_default();
                return Err(act.failed(&self.pool, not_sendable(id, &why)).await);
            }
            if letter.state != "REPLAYING" || Instant::now() >= deadline {
                return act.done(&self.pool, "another request sends it: this one has sent nothing").await;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn not_sendable(id: Uuid, why: &str) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "not-sendable", "The message cannot be sent")
        .detail(why)
        .instance(format!("/api/dlq/messages/{id}"))
}

fn internal(error: BoxError) -> Problem {
    match error.downcast::<sqlx::Error>() {
        Ok(error) => (*error).into(),
        Err(error) => Problem::internal(error),
    }
}
