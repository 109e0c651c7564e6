//! Giving letters up: nobody is to send them back.

use serde::{Deserialize, Serialize};
use serde_json::json;
use service_kit::{FieldError, Problem};
use sqlx::PgPool;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::audit::Act;
use crate::filter::{Filter, matches_filter};
use crate::replay::{no_letter, wrong_state};

const MAX_REASON: usize = 500;
/// Letters of one statement.
const PART: i64 = 2_000;

/// Discards a letter that is not on its way, with the reason.
pub const DISCARD: &str = "
WITH discarded AS (
    UPDATE letter SET state = 'DISCARDED', state_at = now() WHERE id = $1 AND state IN ('NEW', 'UNCONFIRMED') RETURNING id
), told AS (
    INSERT INTO letter_history (letter_id, event, actor, detail) SELECT id, 'DISCARDED', $2, $3 FROM discarded
)
INSERT INTO audit (actor, act, letter_id, arguments, result)
SELECT $2, 'discard', id, json_build_object('reason', $3), 'done' FROM discarded";

/// The state of one letter.
pub const STATE: &str = "SELECT state FROM letter WHERE id = $1";

/// Discards letters that match, the oldest first, up to the letter $9 in the order of the index. Those that somebody else
/// is acting on now are left to them.
pub const DISCARD_MATCHED: &str = concat!(
    "
WITH matched AS (
    SELECT id FROM letter WHERE state = $8 AND seq <= $9 AND ",
    matches_filter!(),
    " ORDER BY seq LIMIT $10 FOR UPDATE SKIP LOCKED
), discarded AS (
    UPDATE letter SET state = 'DISCARDED', state_at = now() WHERE id IN (SELECT id FROM matched) RETURNING id
), told AS (
    INSERT INTO letter_history (letter_id, event, actor, detail) SELECT id, 'DISCARDED', $11, $12 FROM discarded
), audited AS (
    INSERT INTO audit (actor, act, arguments, result, detail)
    SELECT $11, 'discard-many', $13::json, 'done', count(*) || ' letters' FROM discarded HAVING count(*) > 0
)
SELECT count(*) FROM discarded"
);

/// How many that would be.
pub const COUNT_DISCARDS: &str = concat!("SELECT count(*) FROM letter WHERE state = $8 AND ", matches_filter!());

/// The newest letter.
pub const LAST: &str = "SELECT coalesce(max(seq), 0) FROM letter";

/// Which letters to give up, and why.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Discards {
    /// Which letters: at least one condition. `state` is NEW unless it says UNCONFIRMED.
    filter: Filter,
    /// Kept in each letter's history and in the audit.
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
    /// Only tell how many that would be.
    #[serde(default)]
    dry_run: bool,
}

/// What was given up.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Discarded {
    /// Nothing was done.
    dry_run: bool,
    /// Letters given up, or that would be.
    discarded: i64,
}

/// `reason` as it is kept.
pub(crate) fn reason(reason: &str) -> Result<&str, FieldError> {
    let reason = reason.trim();
    if (1..=MAX_REASON).contains(&reason.chars().count()) && !reason.contains('\0') {
        return Ok(reason);
    }
    Err(FieldError::new("/reason", format!("must be 1 to {MAX_REASON} characters, without U+0000")))
}

/// Discards the letter `id`.
pub(crate) async fn discard(pool: &PgPool, id: Uuid, reason: &str, actor: &str) -> Result<(), Problem> {
    let discarded = sqlx::query(DISCARD).bind(id).bind(actor).bind(reason).execute(pool).await?;
    if discarded.rows_affected() > 0 {
        tracing::info!(letter = %id, actor, reason, "a letter was discarded");
        return Ok(());
    }
    let act = Act::on_letter("discard", actor, id, json!({ "reason": reason }));
    let state: Option<String> = sqlx::query_scalar(STATE).bind(id).fetch_optional(pool).await?;
    let problem = state.map_or_else(|| no_letter(id), |state| wrong_state(id, &state));
    Err(act.refused(pool, problem).await)
}

/// Discards all letters that match now, or tells how many they are. Ended in the middle, those that are discarded stay so;
/// each part of them is in the audit.
pub(crate) async fn discard_many(pool: &PgPool, asked: &Discards, actor: &str) -> Result<Discarded, Problem> {
    let arguments = json!({ "filter": asked.filter, "reason": asked.reason, "dryRun": asked.dry_run });
    let act = Act::on_many("discard-many", actor, arguments);
    let (reason, state) = match asked.checked() {
        Ok(checked) => checked,
        Err(errors) => return Err(act.refused(pool, Problem::invalid(errors)).await),
    };
    if asked.dry_run {
        let (count,): (i64,) = asked.filter.bind(sqlx::query_as(COUNT_DISCARDS)).bind(state).fetch_one(pool).await?;
        act.done(pool, &format!("{count} letters would be discarded")).await?;
        return Ok(Discarded { dry_run: true, discarded: count });
    }
    let last: i64 = sqlx::query_scalar(LAST).fetch_one(pool).await?;
    let mut discarded = 0;
    loop {
        let (part,): (i64,) = asked
            .filter
            .bind(sqlx::query_as(DISCARD_MATCHED))
            .bind(state)
            .bind(last)
            .bind(PART)
            .bind(actor)
            .bind(reason)
            .bind(act.arguments.to_string())
            .fetch_one(pool)
            .await?;
        discarded += part;
        if part == 0 {
            break;
        }
    }
    if discarded == 0 {
        act.done(pool, "0 letters").await?;
    }
    tracing::info!(actor, discarded, reason, "letters were discarded");
    Ok(Discarded { dry_run: false, discarded })
}

impl Discards {
    fn checked(&self) -> Result<(&str, &'static str), Vec<FieldError>> {
        let mut errors = Vec::new();
        let reason = reason(&self.reason).map_err(|error| errors.push(error));
        let state = match self.filter.state.as_deref() {
            None | Some("NEW") => "NEW",
            Some("UNCONFIRMED") => "UNCONFIRMED",
            Some(_) => {
                errors.push(FieldError::new("/filter/state", "must be NEW or UNCONFIRMED: no other can be discarded"));
                ""
            }
        };
        if !self.filter.has_conditions() {
            errors.push(FieldError::new("/filter", "must have a condition: it would discard all there is"));
        }
        match reason {
            Ok(reason) if errors.is_empty() => Ok((reason, state)),
            _ => Err(errors),
        }
    }
}
