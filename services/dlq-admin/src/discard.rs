//! Giving a letter up: nobody is to send it back.

use serde_json::json;
use service_kit::Problem;
use sqlx::PgPool;
use uuid::Uuid;

use crate::audit::Act;
use crate::replay::{no_letter, wrong_state};

/// Discards a new letter, with the reason.
pub const DISCARD: &str = "
WITH discarded AS (
    UPDATE letter SET state = 'DISCARDED', state_at = now() WHERE id = $1 AND state = 'NEW' RETURNING id
), told AS (
    INSERT INTO letter_history (letter_id, event, actor, detail) SELECT id, 'DISCARDED', $2, $3 FROM discarded
)
INSERT INTO audit (actor, act, letter_id, arguments, result)
SELECT $2, 'discard', id, json_build_object('reason', $3), 'done' FROM discarded";

/// The state of one letter.
pub const STATE: &str = "SELECT state FROM letter WHERE id = $1";

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
