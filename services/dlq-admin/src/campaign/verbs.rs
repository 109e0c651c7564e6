use serde_json::json;
use service_kit::Problem;
use sqlx::PgPool;
use uuid::Uuid;

use super::view::{CampaignView, show};
use crate::audit::Act;

/// Moves a campaign from one of the states $3 to $2, for the act $4 of $5.
pub const MOVE: &str = "
WITH moved AS (
    UPDATE campaign SET state = $2, ended_at = CASE $2 WHEN 'CANCELLED' THEN now() END WHERE id = $1 AND state = ANY($3)
    RETURNING id
)
INSERT INTO audit (actor, act, campaign_id, arguments, result) SELECT $5, $4, id, '{}', 'done' FROM moved";

/// What an operator can do to a campaign.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Verb {
    Pause,
    Resume,
    Cancel,
}

impl Verb {
    fn act(self) -> &'static str {
        match self {
            Verb::Pause => "campaign-pause",
            Verb::Resume => "campaign-resume",
            Verb::Cancel => "campaign-cancel",
        }
    }

    fn to(self) -> &'static str {
        match self {
            Verb::Pause => "PAUSED",
            Verb::Resume => "RUNNING",
            Verb::Cancel => "CANCELLED",
        }
    }

    fn from(self) -> &'static [&'static str] {
        match self {
            Verb::Pause => &["RUNNING"],
            Verb::Resume => &["PAUSED"],
            Verb::Cancel => &["RUNNING", "PAUSED"],
        }
    }
}

/// Does it, or says why not. What is on its way goes on, whatever becomes of the campaign.
pub(crate) async fn act(pool: &PgPool, id: Uuid, verb: Verb, actor: &str) -> Result<CampaignView, Problem> {
    let moved =
        sqlx::query(MOVE).bind(id).bind(verb.to()).bind(verb.from()).bind(verb.act()).bind(actor).execute(pool).await?;
    let act = Act::on_campaign(verb.act(), actor, id, json!({}));
    match show(pool, id).await {
        Ok(campaign) if moved.rows_affected() > 0 => Ok(campaign),
        Ok(campaign) => {
            let detail = format!("the campaign is {}; it must be {}", campaign.state, verb.from().join(" or "));
            let problem = Problem::conflict("wrong-state", detail).instance(format!("/api/dlq/replays/{id}"));
            Err(act.refused(pool, problem).await)
        }
        Err(problem) if problem.status == 404 => Err(act.refused(pool, problem).await),
        Err(problem) => Err(problem),
    }
}
