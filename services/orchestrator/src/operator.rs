//! What an operator can do to a saga. Any replica serves a verb; the owner of the saga's partition sends what it
//! causes, because the verb commits with the saga's timer due.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use messaging::failpoint;
use saga::{Definition, Input, Outcome, Transition, Verdict};
use serde::Serialize;
use service_kit::Problem;
use service_kit::db::detached;
use sqlx::PgPool;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::definitions::{DefinitionError, Definitions};
use crate::fold::count_transitions;
use crate::handler::CONFLICT_RETRIES;
use crate::load::{LoadError, Stored, load};
use crate::metrics;
use crate::store::{AuditEntry, Changes, TimerChange, WriteError};

/// The longest reason an operator can give, in characters.
pub(crate) const MAX_REASON: usize = 500;

/// A verb with what comes with it.
#[derive(Clone, Debug)]
pub enum Verb {
    /// A parked saga goes on where it stopped.
    Retry { reason: Option<String> },
    /// The saga turns back.
    Compensate { reason: Option<String> },
    /// A parked saga is declared ended.
    Resolve { outcome: Outcome, reason: String },
}

impl Verb {
    fn name(&self) -> &'static str {
        match self {
            Verb::Retry { .. } => "retry",
            Verb::Compensate { .. } => "compensate",
            Verb::Resolve { .. } => "resolve",
        }
    }

    fn reason(&self) -> Option<&str> {
        match self {
            Verb::Retry { reason } | Verb::Compensate { reason } => reason.as_deref(),
            Verb::Resolve { reason, .. } => Some(reason),
        }
    }

    fn outcome(&self) -> Option<&'static str> {
        match self {
            Verb::Resolve { outcome: Outcome::Completed, .. } => Some("COMPLETED"),
            Verb::Resolve { outcome: Outcome::Cancelled, .. } => Some("CANCELLED"),
            Verb::Retry { .. } | Verb::Compensate { .. } => None,
        }
    }

    fn input(&self, by: &str) -> Input {
        let by = by.to_owned();
        match self.clone() {
            Verb::Retry { .. } => Input::Retry { by },
            Verb::Compensate { reason } => Input::Compensate { by, reason },
            Verb::Resolve { outcome, reason } => Input::Resolve { outcome, reason, by },
        }
    }
}

/// What a verb made of a saga.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Acted {
    /// The saga.
    saga_id: Uuid,
    /// Its state now.
    #[schema(example = "COMPENSATING")]
    state: &'static str,
    /// Its version now.
    version: u32,
    /// Why it is in that state, if it is not simply running.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// Applies `verb` to a saga and records it, also when it is refused.
///
/// It runs to its end even when the client goes away: what was begun is either done and recorded or not.
pub(crate) async fn act(
    pool: PgPool,
    definitions: Arc<Definitions>,
    id: Uuid,
    verb: Verb,
    actor: String,
) -> Result<Acted, Problem> {
    detached(async move {
        let mut tries = 0;
        loop {
            match attempt(&pool, &definitions, id, &verb, &actor).await? {
                Ok(result) => return result,
                Err(WriteError::Conflict(_)) if tries < CONFLICT_RETRIES => {
                    metrics::CONFLICTS.inc();
                    tries += 1;
                }
                Err(WriteError::Conflict(error)) => {
                    return Err(Problem::unavailable("the saga is changing too fast").caused_by(error));
                }
                Err(WriteError::Database(error)) => return Err(error.into()),
            }
        }
    })
    .await
}

/// The verb on the saga as it is now. The inner result is the machine's answer, recorded.
async fn attempt(
    pool: &PgPool,
    definitions: &Definitions,
    id: Uuid,
    verb: &Verb,
    actor: &str,
) -> Result<Result<Result<Acted, Problem>, WriteError>, Problem> {
    let mut snapshot = load(pool, &[id]).await?;
    let stored = snapshot.sagas.remove(&id).ok_or_else(|| Problem::not_found(format!("there is no saga {id}")))?;
    let definition = definitions.one(stored.definition_id).await?;
    let (changes, transition) = decide(&definition, &stored, verb, actor, snapshot.now)
        .map_err(|other| Problem::internal(format!("the machine answers a verb with {other:?}")))?;

    failpoint::hit("verb-before-commit", verb.name());
    if let Err(error) = changes.write(pool).await {
        return Ok(Err(error));
    }
    failpoint::hit("verb-after-commit", verb.name());

    let result = if transition.is_ok() { "applied" } else { "refused" };
    metrics::VERBS.with_label_values(&[verb.name(), result]).inc();
    tracing::info!(saga.id = %id, verb = verb.name(), actor, result, "an operator acted");
    Ok(Ok(match transition {
        Ok(transition) => {
            let entry = std::slice::from_ref(&transition.entry);
            count_transitions(&definition, &transition.saga, entry);
            let saga = transition.saga;
            Ok(Acted { saga_id: id, state: saga.state.as_str(), version: saga.version, reason: saga.reason })
        }
        Err(why) => Err(Problem::conflict("verb-refused", why).instance(format!("/api/sagas/{id}"))),
    }))
}

/// What `verb` makes of a saga: what is to be stored, and the transition, or why it was refused.
///
/// # Errors
/// An answer that the machine does not give to a verb.
pub fn decide(
    definition: &Definition,
    stored: &Stored,
    verb: &Verb,
    actor: &str,
    now: DateTime<Utc>,
) -> Result<(Changes, Result<Transition, String>), Verdict> {
    let before = &stored.saga;
    let mut audit = AuditEntry {
        at: now,
        saga_id: before.id,
        verb: verb.name(),
        actor: actor.to_owned(),
        reason: verb.reason().map(str::to_owned),
        outcome: verb.outcome(),
        refusal: None,
        version: before.version,
    };
    let mut changes = Changes::default();
    let transition = match saga::apply(definition, before, &verb.input(actor), now) {
        Verdict::Moved(transition) => Ok(*transition),
        Verdict::Refused(why) => Err(why),
        other => return Err(other),
    };
    match &transition {
        Ok(transition) => {
            audit.version = transition.saga.version;
            changes.advance(&transition.saga, before.version);
            changes.log(before.id, &transition.entry, None);
            changes.timer(&transition.saga, stored.partition, TimerChange::Due { at: now, emit: true });
        }
        Err(why) => audit.refusal = Some(why.clone()),
    }
    changes.audit(audit);
    Ok((changes, transition))
}

impl From<LoadError> for Problem {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Database(error) => error.into(),
            error @ LoadError::Corrupt { .. } => Problem::internal(error),
        }
    }
}

impl From<DefinitionError> for Problem {
    fn from(error: DefinitionError) -> Self {
        match error {
            DefinitionError::Database(error) => error.into(),
            error => Problem::internal(error),
        }
    }
}
