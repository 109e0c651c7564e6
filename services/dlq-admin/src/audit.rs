//! The record of what operators asked for. Rows are never changed: the database refuses it.

use serde_json::Value;
use service_kit::{ApiJson, Problem};
use sqlx::PgPool;
use uuid::Uuid;

use crate::metrics;

/// Records an act that changed nothing; one that changes something is recorded by the statement that does.
pub const RECORD: &str = "
INSERT INTO audit (actor, act, letter_id, campaign_id, arguments, result, detail)
VALUES ($1, $2, $3, $4, $5::json, $6, $7)";

/// Something that an operator asked for.
#[derive(Clone, Debug)]
pub(crate) struct Act {
    /// `replay`, `edit`, `discard`, `campaign-start`, …
    pub(crate) name: &'static str,
    pub(crate) actor: String,
    pub(crate) letter: Option<Uuid>,
    pub(crate) campaign: Option<Uuid>,
    /// Everything else that was said.
    pub(crate) arguments: Value,
}

impl Act {
    /// An act on a letter.
    pub(crate) fn on_letter(name: &'static str, actor: &str, letter: Uuid, arguments: Value) -> Self {
        Act { name, actor: actor.to_owned(), letter: Some(letter), campaign: None, arguments }
    }

    /// An act on a campaign.
    pub(crate) fn on_campaign(name: &'static str, actor: &str, campaign: Uuid, arguments: Value) -> Self {
        Act { name, actor: actor.to_owned(), letter: None, campaign: Some(campaign), arguments }
    }

    /// An act on many letters.
    pub(crate) fn on_many(name: &'static str, actor: &str, arguments: Value) -> Self {
        Act { name, actor: actor.to_owned(), letter: None, campaign: None, arguments }
    }

    /// The body of the request. One that cannot be read is an act that was refused.
    pub(crate) async fn read<T>(&self, pool: &PgPool, body: Result<ApiJson<T>, Problem>) -> Result<T, Problem> {
        match body {
            Ok(ApiJson(body)) => Ok(body),
            Err(problem) => Err(self.refused(pool, problem).await),
        }
    }

    /// Records that it was done, though it changed nothing.
    pub(crate) async fn done(&self, pool: &PgPool, detail: &str) -> Result<(), Problem> {
        self.record(pool, "done", detail).await?;
        Ok(())
    }

    /// Records that it was refused, and gives `problem` back for the answer.
    pub(crate) async fn refused(&self, pool: &PgPool, problem: Problem) -> Problem {
        self.recorded(pool, "refused", problem).await
    }

    /// Records that it was tried and could not be done.
    pub(crate) async fn failed(&self, pool: &PgPool, problem: Problem) -> Problem {
        self.recorded(pool, "failed", problem).await
    }

    async fn recorded(&self, pool: &PgPool, result: &str, problem: Problem) -> Problem {
        metrics::REFUSALS.with_label_values(&[self.name, problem.slug]).inc();
        let detail = format!("{}: {}", problem.slug, problem.detail.as_deref().unwrap_or_default());
        tracing::info!(act = self.name, actor = self.actor, letter = ?self.letter, result, detail, "an operator's act");
        match self.record(pool, result, &detail).await {
            Ok(()) => problem,
            // What is not recorded is not answered either.
            Err(error) => error.into(),
        }
    }

    async fn record(&self, pool: &PgPool, result: &str, detail: &str) -> Result<(), sqlx::Error> {
        sqlx::query(RECORD)
            .bind(&self.actor)
            .bind(self.name)
            .bind(self.letter)
            .bind(self.campaign)
            .bind(self.arguments.to_string())
            .bind(result)
            .bind(crate::letter::clean(detail, 1_000))
            .execute(pool)
            .await?;
        Ok(())
    }
}
