use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use service_kit::{FieldError, Problem};
use sqlx::PgPool;
use utoipa::ToSchema;
use uuid::Uuid;

use super::view::{CampaignView, Refusal, show};
use crate::audit::Act;
use crate::config::CampaignConfig;
use crate::filter::{Filter, matches_filter};
use crate::replay::Replays;
use crate::target::FORBIDDEN;

/// Starts a campaign over all new letters that match, the oldest first.
pub const START: &str = concat!(
    "
WITH matched AS (
    SELECT id, row_number() OVER (ORDER BY seq) AS position FROM letter WHERE state = 'NEW' AND ",
    matches_filter!(),
    "
), started AS (
    INSERT INTO campaign (id, state, filter, rate, max_failure_share, actor)
    VALUES ($8, 'RUNNING', $9::json, $10, $11, $12)
), items AS (
    INSERT INTO campaign_item (campaign_id, position, letter_id) SELECT $8, position::integer, id FROM matched
), audited AS (
    INSERT INTO audit (actor, act, campaign_id, arguments, result)
    VALUES ($12, 'campaign-start', $8, json_build_object('filter', $9::json, 'ratePerSecond', $10, 'maxFailureShare', $11), 'done')
)
SELECT count(*) FROM matched"
);

/// What a campaign would have to send, by where it would go, and what of it is cut.
pub const COUNT_MATCHES: &str = concat!(
    "SELECT topic, dlq_topic, source_format, truncated, count(*) FROM letter WHERE state = 'NEW' AND ",
    matches_filter!(),
    " GROUP BY 1, 2, 3, 4"
);

/// Those of them on the topics $9, with the saga that they name, or else the key.
pub const MATCHED_SAGAS: &str = concat!(
    "SELECT id, saga_id, key_text, topic, dlq_topic, source_format FROM letter
WHERE state = 'NEW' AND NOT truncated AND topic = ANY($9) AND ",
    matches_filter!(),
    " ORDER BY seq LIMIT $8"
);

/// What to send back, and how fast.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Wanted {
    /// Which letters; all new ones when it is empty.
    #[serde(default)]
    pub(crate) filter: Filter,
    /// Messages a second, at most; the configured default when absent.
    pub(crate) rate_per_second: Option<u32>,
    /// It stops when a larger share of what it sent failed again, 0 to 1; the configured default (0.1) when absent.
    pub(crate) max_failure_share: Option<f64>,
    /// Only tell what it would do.
    #[serde(default)]
    pub(crate) dry_run: bool,
}

/// What a campaign would do.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DryRun {
    /// Always true.
    dry_run: bool,
    /// New letters that match.
    matched: i64,
    /// Those that would be sent, as far as was asked.
    sendable: i64,
    /// Those that would not.
    refused: i64,
    /// Why not.
    refusals: Vec<Refusal>,
    /// Of how many the saga was asked for; sagas of more are not known.
    sagas_asked: usize,
    /// Messages a second, at most.
    rate_per_second: u32,
    /// The largest share of failures.
    max_failure_share: f64,
}

/// Limits with which a campaign runs.
pub(crate) struct Limits {
    rate: u32,
    share: f64,
}

impl Wanted {
    /// As it stands in the audit.
    pub(crate) fn arguments(&self) -> Value {
        json!({
            "filter": self.filter, "ratePerSecond": self.rate_per_second, "maxFailureShare": self.max_failure_share,
            "dryRun": self.dry_run,
        })
    }

    /// The limits asked for.
    pub(crate) fn limits(&self, config: &CampaignConfig) -> Result<Limits, Problem> {
        let rate = self.rate_per_second.unwrap_or(config.rate_per_second);
        let share = self.max_failure_share.unwrap_or(config.max_failure_share);
        let mut errors = Vec::new();
        if !(1..=config.max_rate_per_second).contains(&rate) {
            let detail = format!("must be from 1 to {}", config.max_rate_per_second);
            errors.push(FieldError::new("/ratePerSecond", detail));
        }
        if !(0.0..=1.0).contains(&share) {
            errors.push(FieldError::new("/maxFailureShare", "must be from 0 to 1"));
        }
        if self.filter.state.as_deref().is_some_and(|state| state != "NEW") {
            errors.push(FieldError::new("/filter/state", "must be NEW: no other letter can be sent"));
        }
        if errors.is_empty() { Ok(Limits { rate, share }) } else { Err(Problem::invalid(errors)) }
    }
}

/// Starts the campaign.
pub(crate) async fn start(
    pool: &PgPool,
    wanted: &Wanted,
    limits: &Limits,
    actor: &str,
) -> Result<CampaignView, Problem> {
    let id = Uuid::now_v7();
    let filter = json!(wanted.filter).to_string();
    let started: (i64,) = wanted
        .filter
        .bind(sqlx::query_as(START))
        .bind(id)
        .bind(filter)
        .bind(i32::try_from(limits.rate).unwrap_or(i32::MAX))
        .bind(limits.share)
        .bind(actor)
        .fetch_one(pool)
        .await?;
    tracing::info!(campaign = %id, actor, letters = started.0, "a campaign starts");
    show(pool, id).await
}

type MatchRow = (String, String, String, bool, i64);
type SagaRow = (Uuid, Option<Uuid>, Option<String>, String, String, String);

/// Tells what the campaign would do. Changes nothing but the audit.
pub(crate) async fn preview(
    pool: &PgPool,
    replays: &Replays,
    wanted: &Wanted,
    limits: &Limits,
    most_sagas: usize,
    act: &Act,
) -> Result<DryRun, Problem> {
    let rows: Vec<MatchRow> = wanted.filter.bind(sqlx::query_as(COUNT_MATCHES)).fetch_all(pool).await?;
    let mut matched = 0;
    let mut reasons: BTreeMap<String, i64> = BTreeMap::new();
    for (topic, dlq_topic, format, truncated, count) in rows {
        matched += count;
        if replays.targets().refusal(&topic, &dlq_topic, &format).is_some() {
            *reasons.entry(FORBIDDEN.to_owned()).or_default() += count;
        } else if truncated {
            *reasons.entry("truncated-letter".to_owned()).or_default() += count;
        }
    }
    let rows: Vec<SagaRow> = wanted
        .filter
        .bind(sqlx::query_as(MATCHED_SAGAS))
        .bind(i64::try_from(most_sagas).unwrap_or(i64::MAX))
        .bind(replays.sagas().course())
        .fetch_all(pool)
        .await?;
    let asked: Vec<(Uuid, Uuid)> = rows
        .into_iter()
        .filter(|(.., topic, dlq_topic, format)| replays.targets().refusal(topic, dlq_topic, format).is_none())
        .filter_map(|(id, saga, key, ..)| Some((id, saga.or_else(|| Uuid::try_parse(key?.trim()).ok())?)))
        .collect();
    let ended = match replays.ended_among(&asked).await {
        Ok(ended) => ended,
        Err(error) => return Err(act.failed(pool, error.into()).await),
    };
    for (_, reason) in ended {
        *reasons.entry(reason).or_default() += 1;
    }
    let refusals: Vec<Refusal> = reasons
        .into_iter()
        .map(|(reason, count)| Refusal { state: "REFUSED".to_owned(), reason: Some(reason), count })
        .collect();
    let refused = refusals.iter().map(|refusal| refusal.count).sum();
    act.done(pool, &format!("{matched} letters match, {refused} of them would be refused")).await?;
    Ok(DryRun {
        dry_run: true,
        matched,
        sendable: matched - refused,
        refused,
        refusals,
        sagas_asked: asked.len(),
        rate_per_second: limits.rate,
        max_failure_share: limits.share,
    })
}
