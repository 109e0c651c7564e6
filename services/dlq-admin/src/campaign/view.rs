use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use service_kit::Problem;
use sqlx::types::Json;
use sqlx::{FromRow, PgPool, Row};
use utoipa::ToSchema;
use uuid::Uuid;

macro_rules! campaign_columns {
    () => {
        "SELECT c.id, c.state, c.reason, c.filter, c.rate, c.max_failure_share, c.wave, c.actor, c.created_at, c.ended_at,
    p.*, (SELECT json_agg(r ORDER BY r.count DESC) FROM (
        SELECT i.state, i.reason, count(*) FROM campaign_item i
        WHERE i.campaign_id = c.id AND i.state IN ('REFUSED', 'SKIPPED') GROUP BY 1, 2) r) AS refusals
FROM campaign c CROSS JOIN LATERAL (
    SELECT count(*) AS total,
        count(*) FILTER (WHERE i.state = 'WAITING') AS waiting,
        count(*) FILTER (WHERE i.state = 'SENT' AND l.state IN ('REPLAYING', 'SENT') AND l.group_name <> '') AS in_flight,
        count(*) FILTER (WHERE i.state = 'SENT' AND l.state IN ('REPLAYING', 'SENT') AND l.group_name = '') AS unwatched,
        count(*) FILTER (WHERE i.state = 'SENT' AND l.state = 'REPROCESSED') AS reprocessed,
        count(*) FILTER (WHERE i.state = 'SENT' AND l.state = 'FAILED_AGAIN') AS failed_again,
        count(*) FILTER (WHERE i.state = 'SENT' AND l.state = 'UNCONFIRMED') AS unconfirmed,
        count(*) FILTER (WHERE i.state = 'SENT' AND l.state = 'DISCARDED') AS discarded,
        count(*) FILTER (WHERE i.state = 'REFUSED') AS refused,
        count(*) FILTER (WHERE i.state = 'SKIPPED') AS skipped
    FROM campaign_item i JOIN letter l ON l.id = i.letter_id WHERE i.campaign_id = c.id) p
"
    };
}

/// One campaign with its progress.
pub const SHOW_CAMPAIGN: &str = concat!(campaign_columns!(), "WHERE c.id = $1");

/// Campaigns, the newest first.
pub const LIST_CAMPAIGNS: &str = concat!(
    campaign_columns!(),
    "WHERE $1::timestamptz IS NULL OR (c.created_at, c.id) < ($1, $2) ORDER BY c.created_at DESC, c.id DESC LIMIT $3"
);

/// A campaign with its progress.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CampaignView {
    /// The campaign.
    pub(crate) id: Uuid,
    /// `RUNNING`, `PAUSED`, `STOPPED` (too much failed again, or was not confirmed in time), `CANCELLED` or `COMPLETED`.
    #[schema(example = "RUNNING")]
    pub(crate) state: String,
    /// Why it stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Which letters were meant.
    filter: Value,
    /// Messages a second, at most.
    rate_per_second: i32,
    /// It stops when a larger share of what it sent failed again.
    max_failure_share: f64,
    /// The wave under way; 0: none has begun.
    wave: i32,
    /// Who started it.
    actor: String,
    /// When it was started.
    pub(crate) created_at: DateTime<Utc>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<DateTime<Utc>>,
    /// Where its letters are.
    progress: Progress,
}

/// Where the letters of a campaign are.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Progress {
    /// All of them.
    total: i64,
    /// Not sent yet.
    waiting: i64,
    /// Sent, and not known to be processed.
    in_flight: i64,
    /// Sent, for a group that no letter names: nobody can tell whether they are processed.
    unwatched: i64,
    /// Processed by their group.
    reprocessed: i64,
    /// Dead letters again.
    failed_again: i64,
    /// Sent, and not confirmed in time.
    unconfirmed: i64,
    /// Given up by an operator after they were not confirmed in time.
    discarded: i64,
    /// Not to be sent.
    refused: i64,
    /// Acted on by somebody else before their turn.
    skipped: i64,
    /// Of refused and skipped ones, how many for which reason.
    refusals: Vec<Refusal>,
}

/// Why letters of a campaign were not sent.
#[derive(Debug, Serialize, serde::Deserialize, ToSchema)]
pub(crate) struct Refusal {
    /// `REFUSED` or `SKIPPED`.
    pub(crate) state: String,
    /// Why.
    #[serde(default)]
    pub(crate) reason: Option<String>,
    /// How many.
    pub(crate) count: i64,
}

impl FromRow<'_, sqlx::postgres::PgRow> for CampaignView {
    fn from_row(row: &sqlx::postgres::PgRow) -> Result<Self, sqlx::Error> {
        let Json(filter) = row.try_get("filter")?;
        let refusals: Option<Json<Vec<Refusal>>> = row.try_get("refusals")?;
        Ok(CampaignView {
            id: row.try_get("id")?,
            state: row.try_get("state")?,
            reason: row.try_get("reason")?,
            filter,
            rate_per_second: row.try_get("rate")?,
            max_failure_share: row.try_get("max_failure_share")?,
            wave: row.try_get("wave")?,
            actor: row.try_get("actor")?,
            created_at: row.try_get("created_at")?,
            ended_at: row.try_get("ended_at")?,
            progress: Progress {
                total: row.try_get("total")?,
                waiting: row.try_get("waiting")?,
                in_flight: row.try_get("in_flight")?,
                unwatched: row.try_get("unwatched")?,
                reprocessed: row.try_get("reprocessed")?,
                failed_again: row.try_get("failed_again")?,
                unconfirmed: row.try_get("unconfirmed")?,
                discarded: row.try_get("discarded")?,
                refused: row.try_get("refused")?,
                skipped: row.try_get("skipped")?,
                refusals: refusals.map(|Json(refusals)| refusals).unwrap_or_default(),
            },
        })
    }
}

/// The campaign `id` as it is now.
pub(crate) async fn show(pool: &PgPool, id: Uuid) -> Result<CampaignView, Problem> {
    let view = sqlx::query_as(SHOW_CAMPAIGN).bind(id).fetch_optional(pool).await?;
    view.ok_or_else(|| Problem::not_found(format!("there is no campaign {id}")))
}
