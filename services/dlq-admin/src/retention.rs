//! What has ended long ago is removed. Letters that somebody may still act on stay, and so does the audit.

use sqlx::PgPool;

/// Items of the oldest campaign that ended more than $1 days ago.
pub const FORGET_ITEMS: &str = "
DELETE FROM campaign_item i USING (
    SELECT n.campaign_id, n.position FROM (
        SELECT id FROM campaign WHERE ended_at < now() - $1 * interval '1 day' ORDER BY ended_at LIMIT 1) c
    CROSS JOIN LATERAL (
        SELECT campaign_id, position FROM campaign_item WHERE campaign_id = c.id ORDER BY position LIMIT 2000) n) old
WHERE i.campaign_id = old.campaign_id AND i.position = old.position";

/// That campaign itself, when it has no items left.
pub const FORGET_CAMPAIGN: &str = "
DELETE FROM campaign c
WHERE id = (SELECT id FROM campaign WHERE ended_at < now() - $1 * interval '1 day' ORDER BY ended_at LIMIT 1)
  AND NOT EXISTS (SELECT FROM campaign_item i WHERE i.campaign_id = c.id LIMIT 1)";

/// Letters that ended more than $1 days ago, but for those of a campaign that is kept.
pub const FORGET_LETTERS: &str = "
WITH old AS (
    SELECT id FROM letter l
    WHERE state IN ('REPROCESSED', 'FAILED_AGAIN', 'DISCARDED') AND state_at < now() - $1 * interval '1 day'
      AND NOT EXISTS (SELECT FROM campaign_item i WHERE i.letter_id = l.id)
    ORDER BY state_at LIMIT 500 FOR UPDATE SKIP LOCKED
), edits AS (
    DELETE FROM letter_edit WHERE letter_id IN (SELECT id FROM old)
), steps AS (
    DELETE FROM letter_history WHERE letter_id IN (SELECT id FROM old)
)
DELETE FROM letter WHERE id IN (SELECT id FROM old)";

/// Groups of errors that have no letter any more.
pub const FORGET_GROUPS: &str = "
WITH empty AS (
    DELETE FROM letter_group g WHERE indexed_at < now() - $1 * interval '1 day'
      AND NOT EXISTS (SELECT FROM letter l WHERE l.fingerprint = g.fingerprint)
    RETURNING fingerprint
)
DELETE FROM letter_count WHERE fingerprint IN (SELECT fingerprint FROM empty)";

/// Removes what ended more than `days` ago, in parts, so that no lock is held for long.
pub(crate) async fn forget(pool: &PgPool, days: u32) -> Result<(), sqlx::Error> {
    if days == 0 {
        return Ok(());
    }
    let remove = async |statement: &'static str| sqlx::query(statement).bind(f64::from(days)).execute(pool).await;
    // The oldest campaign goes item by item and then itself, and then the next one is the oldest.
    while remove(FORGET_ITEMS).await?.rows_affected() > 0 || remove(FORGET_CAMPAIGN).await?.rows_affected() > 0 {}
    let mut letters = 0;
    loop {
        match remove(FORGET_LETTERS).await?.rows_affected() {
            0 => break,
            rows => letters += rows,
        }
    }
    remove(FORGET_GROUPS).await?;
    if letters > 0 {
        tracing::info!(letters, days, "letters that ended long ago are removed");
    }
    Ok(())
}
