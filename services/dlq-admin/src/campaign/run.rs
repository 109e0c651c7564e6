use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use messaging::failpoint;
use service_kit::BoxError;
use sqlx::PgPool;
use uuid::Uuid;

use super::wave_size;
use crate::background::Failing;
use crate::replay::{AT_ONCE, Claimant, Replays};
use crate::{GROUP, metrics};

/// Messages of one step at most: as many as are sent at once, so that no claim runs out before its message's turn.
const STEP: u32 = AT_ONCE as u32;
/// A campaign that cannot go on, perhaps because somebody does not answer, takes so little of the others' time.
const AGAIN: Duration = Duration::from_secs(5);
/// A wave is sent in parts of so much time's allowance.
const PART_SECONDS: f64 = 0.25;

/// Takes campaigns that nobody runs, and keeps those that this replica runs: those first that were looked at the longest
/// ago, so that each has its turn however many there are.
pub const LEASE: &str = "
UPDATE campaign SET lease_owner = $1, lease_until = now() + $2 * interval '1 millisecond'
WHERE id IN (
    SELECT id FROM campaign WHERE state = 'RUNNING' AND (lease_owner = $1 OR lease_until < now())
    ORDER BY lease_until LIMIT 20 FOR UPDATE SKIP LOCKED)
RETURNING id, rate, max_failure_share, wave, actor";

/// Whether the replica $2 still runs a campaign.
pub const STILL_RUNS: &str =
    "SELECT EXISTS (SELECT FROM campaign WHERE id = $1 AND state = 'RUNNING' AND lease_owner = $2)";

/// Where a campaign is: not begun, due in this wave, on their way, reprocessed, failed again, not confirmed.
pub const COUNTS: &str = "
SELECT count(*) FILTER (WHERE i.state = 'WAITING' AND i.wave IS NULL),
    count(*) FILTER (WHERE i.state = 'WAITING' AND i.wave IS NOT NULL),
    count(*) FILTER (WHERE i.state = 'SENT' AND l.state IN ('REPLAYING', 'SENT') AND l.group_name <> ''),
    count(*) FILTER (WHERE i.state = 'SENT' AND l.state = 'REPROCESSED'),
    count(*) FILTER (WHERE i.state = 'SENT' AND l.state = 'FAILED_AGAIN'),
    count(*) FILTER (WHERE i.state = 'SENT' AND l.state = 'UNCONFIRMED' AND l.group_name <> '')
FROM campaign_item i JOIN letter l ON l.id = i.letter_id WHERE i.campaign_id = $1";

/// Begins the wave $2 with the next $4 letters, if this replica still runs the campaign.
pub const NEXT_WAVE: &str = "
WITH begun AS (
    UPDATE campaign SET wave = $2 WHERE id = $1 AND wave = $2 - 1 AND state = 'RUNNING' AND lease_owner = $3 RETURNING id
)
UPDATE campaign_item i SET wave = $2 FROM begun
WHERE i.campaign_id = begun.id AND i.position IN (
    SELECT position FROM campaign_item WHERE campaign_id = $1 AND state = 'WAITING' AND wave IS NULL
    ORDER BY position LIMIT $4)";

/// What is due in the wave that has begun.
pub const NEXT_ITEMS: &str = "
SELECT letter_id FROM campaign_item WHERE campaign_id = $1 AND state = 'WAITING' AND wave IS NOT NULL
ORDER BY position LIMIT $2";

/// Items that are not sent, with the reason.
pub const MARK_ITEMS: &str = "
UPDATE campaign_item i SET state = t.state, reason = t.reason
FROM UNNEST($2::uuid[], $3::text[], $4::text[]) AS t (letter_id, state, reason)
WHERE i.campaign_id = $1 AND i.letter_id = t.letter_id AND i.state = 'WAITING'";

/// A campaign is over.
pub const END: &str = "
WITH ended AS (
    UPDATE campaign SET state = $2, reason = $3, ended_at = now() WHERE id = $1 AND state = 'RUNNING' RETURNING id
)
INSERT INTO audit (actor, act, campaign_id, arguments, result, detail)
SELECT 'dlq-admin', 'campaign-end', id, json_build_object('state', $2), 'done', $3 FROM ended";

/// A campaign as its runner needs it.
#[derive(sqlx::FromRow)]
struct Campaign {
    id: Uuid,
    rate: i32,
    max_failure_share: f64,
    wave: i32,
    actor: String,
}

#[derive(sqlx::FromRow)]
struct Counts(i64, i64, i64, i64, i64, i64);

/// Runs campaigns whose lease it can get.
pub(crate) struct Runner {
    pool: PgPool,
    replays: Arc<Replays>,
    replica: Uuid,
    lease_ms: u64,
    /// When each campaign may send again, by its rate.
    paces: HashMap<Uuid, Instant>,
    failing: HashMap<Uuid, Failing>,
}

impl Runner {
    pub(crate) fn new(pool: PgPool, replays: Arc<Replays>, lease_ms: u64) -> Self {
        Runner { pool, replays, replica: Uuid::new_v4(), lease_ms, paces: HashMap::new(), failing: HashMap::new() }
    }

    /// A step of every campaign. Tells when the next is due; none when no campaign runs here.
    ///
    /// # Errors
    /// When the campaigns cannot be asked for. One that cannot go on is said in the log and holds up no other.
    pub(crate) async fn turn(&mut self) -> Result<Option<Duration>, sqlx::Error> {
        let lease = self.lease_ms as f64;
        let campaigns: Vec<Campaign> =
            sqlx::query_as(LEASE).bind(self.replica).bind(lease).fetch_all(&self.pool).await?;
        metrics::CAMPAIGNS.set(i64::try_from(campaigns.len()).unwrap_or(i64::MAX));
        let runs = |id: &Uuid| campaigns.iter().any(|campaign| campaign.id == *id);
        let now = Instant::now();
        // One whose turn it is not keeps its pace.
        self.paces.retain(|id, pace| runs(id) || *pace > now);
        self.failing.retain(|id, _| runs(id));
        let mut next = None;
        for campaign in &campaigns {
            let due = self.step(campaign).await;
            if due.is_err() {
                self.paces.insert(campaign.id, Instant::now() + AGAIN);
            }
            let failing = self.failing.entry(campaign.id).or_insert_with(|| Failing::new("a campaign stands still"));
            next = sooner(next, failing.told(due));
        }
        Ok(next)
    }

    /// Sends a part of the wave, or waits for it, or begins the next, or ends. Gives the time until there is more to do.
    async fn step(&mut self, campaign: &Campaign) -> Result<Duration, BoxError> {
        let counts: Counts = sqlx::query_as(COUNTS).bind(campaign.id).fetch_one(&self.pool).await?;
        let Counts(waiting, due, under_way, reprocessed, failed, unconfirmed) = counts;
        // All that is not known yet counts as good: when it passes now, it passes in the end.
        let share = failed as f64 / (due + under_way + reprocessed + failed).max(1) as f64;
        if failed > 0 && share > campaign.max_failure_share {
            let reason = format!(
                "{failed} of {} failed again, more than a share of {}",
                reprocessed + failed,
                campaign.max_failure_share
            );
            self.end(campaign, "STOPPED", Some(&reason)).await?;
            return Ok(Duration::ZERO);
        }
        if unconfirmed > 0 {
            let reason = format!("{unconfirmed} sent messages were not confirmed in time: does their group still run?");
            self.end(campaign, "STOPPED", Some(&reason)).await?;
            return Ok(Duration::ZERO);
        }
        if due > 0 {
            return self.send(campaign).await;
        }
        if under_way > 0 {
            return Ok(Duration::MAX);
        }
        if waiting == 0 {
            self.end(campaign, "COMPLETED", None).await?;
            return Ok(Duration::ZERO);
        }
        let wave = campaign.wave + 1;
        let size = wave_size(wave);
        sqlx::query(NEXT_WAVE).bind(campaign.id).bind(wave).bind(self.replica).bind(size).execute(&self.pool).await?;
        tracing::info!(campaign = %campaign.id, wave, messages = size.min(waiting), "a wave begins");
        failpoint::hit("campaign-wave", GROUP);
        Ok(Duration::ZERO)
    }

    async fn send(&mut self, campaign: &Campaign) -> Result<Duration, BoxError> {
        let now = Instant::now();
        let pace = self.paces.entry(campaign.id).or_insert(now);
        if *pace > now {
            return Ok(*pace - now);
        }
        let rate = f64::from(campaign.rate);
        let part = (rate * PART_SECONDS).ceil().clamp(1.0, STEP.into());
        let ids: Vec<Uuid> =
            sqlx::query_scalar(NEXT_ITEMS).bind(campaign.id).bind(part as i64).fetch_all(&self.pool).await?;
        // While the orchestrator does not answer they wait: nobody knows whether they may be sent.
        let refused = self.replays.refusals(&ids).await?;
        for (_, reason) in &refused {
            let reason = reason.split(':').next().unwrap_or_default();
            metrics::REFUSALS.with_label_values(&["campaign", reason]).inc();
        }
        let sendable: Vec<Uuid> =
            ids.into_iter().filter(|id| refused.iter().all(|(refused, _)| refused != id)).collect();
        let by = Claimant::Campaign { id: campaign.id, actor: &campaign.actor, replica: self.replica };
        let claimed = self.replays.claim(&sendable, &by).await?;
        let mut marks: Vec<(Uuid, &str, String)> =
            refused.into_iter().map(|(id, reason)| (id, "REFUSED", reason)).collect();
        // None at all: the campaign was paused or lost meanwhile, or all of them are on their way by others.
        let others = sendable.iter().filter(|id| !claimed.contains(id));
        if !claimed.is_empty() || self.still_runs(campaign).await? {
            marks.extend(others.map(|id| (*id, "SKIPPED", "it is not NEW any more".to_owned())));
        }
        self.mark(campaign.id, &marks).await?;
        self.paces.insert(campaign.id, now + Duration::from_secs_f64(claimed.len() as f64 / rate));
        self.replays.deliver(&claimed, "sent").await?;
        self.replays.wake.notify_waiters();
        Ok(Duration::ZERO)
    }

    async fn still_runs(&self, campaign: &Campaign) -> Result<bool, sqlx::Error> {
        sqlx::query_scalar(STILL_RUNS).bind(campaign.id).bind(self.replica).fetch_one(&self.pool).await
    }

    async fn mark(&self, campaign: Uuid, marks: &[(Uuid, &str, String)]) -> Result<(), sqlx::Error> {
        if marks.is_empty() {
            return Ok(());
        }
        sqlx::query(MARK_ITEMS)
            .bind(campaign)
            .bind(marks.iter().map(|(id, ..)| *id).collect::<Vec<_>>())
            .bind(marks.iter().map(|(_, state, _)| *state).collect::<Vec<_>>())
            .bind(marks.iter().map(|(.., reason)| reason.as_str()).collect::<Vec<_>>())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    async fn end(&self, campaign: &Campaign, state: &str, reason: Option<&str>) -> Result<(), sqlx::Error> {
        sqlx::query(END).bind(campaign.id).bind(state).bind(reason).execute(&self.pool).await?;
        tracing::info!(campaign = %campaign.id, state, reason, "a campaign ended");
        Ok(())
    }
}

/// When the first of them has more to do. One that fails is tried again when the runner looks anyway: it neither hurries
/// the others nor delays them.
fn sooner(next: Option<Duration>, due: Option<Duration>) -> Option<Duration> {
    match (next, due) {
        (Some(next), Some(due)) => Some(next.min(due)),
        (next, due) => next.or(due),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_campaign_that_fails_neither_hurries_nor_delays_the_others() {
        let second = Duration::from_secs(1);
        let next = |dues: &[Option<Duration>]| dues.iter().copied().fold(None, sooner);
        assert_eq!(next(&[None, Some(second), Some(second * 2), None]), Some(second));
        assert_eq!(next(&[Some(Duration::ZERO), None]), Some(Duration::ZERO));
        assert_eq!(next(&[None, None]), None);
    }
}
