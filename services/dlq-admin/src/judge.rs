//! What became of a replay.
//!
//! A message that was sent back is reprocessed when the group that it is for has committed an offset behind it and no new
//! letter carries the replay's id. A letter is on its topic before the group commits. So the order is: see the commit,
//! ask where the dead letter topic ends, wait until this service has read up to there, look.

use std::collections::BTreeMap;

use messaging::KafkaConfig;
use messaging::admin::{self, AdminError};
use service_kit::BoxError;
use sqlx::PgPool;

use crate::{GROUP, metrics};

/// What is sent and not judged, by where its group must have come.
pub const UNDER_WAY: &str = "
SELECT group_name, topic, dlq_topic, sent_partition, min(sent_offset)
FROM letter WHERE state = 'SENT' AND group_name <> ''
GROUP BY 1, 2, 3, 4";

/// Whether something is claimed or sent, also by others.
pub const ANY_UNDER_WAY: &str =
    "SELECT EXISTS (SELECT FROM letter WHERE state IN ('REPLAYING', 'SENT') AND group_name <> '')";

/// Those below the offset $5 are reprocessed: had one failed again, its letter would have been found by now.
pub const JUDGE: &str = "
WITH done AS (
    UPDATE letter SET state = 'REPROCESSED', state_at = now()
    WHERE state = 'SENT' AND group_name = $1 AND topic = $2 AND dlq_topic = $3 AND sent_partition = $4 AND sent_offset < $5
    RETURNING id, replay_id
)
INSERT INTO letter_history (letter_id, event, replay_id) SELECT id, 'REPROCESSED', replay_id FROM done";

/// Letters by topic and state.
pub const COUNT: &str = "SELECT topic, state, count(*) FROM letter GROUP BY 1, 2";

/// For whom messages were sent: the group, the topic, and where they go when they fail again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Target {
    group: String,
    topic: String,
    dlq_topic: String,
}

/// A group has passed messages; they are judged when the dead letters are read up to `ends`.
struct Barrier {
    target: Target,
    /// The committed offset of each partition, from before `ends`.
    passed: Vec<(i32, i64)>,
    /// First and next offset of each partition of the dead letter topic.
    ends: Vec<(i64, i64)>,
}

/// Follows what was sent back. What it knows is asked for again after a restart.
pub(crate) struct Judge {
    pool: PgPool,
    kafka: KafkaConfig,
    barriers: Vec<Barrier>,
}

impl Judge {
    pub(crate) fn new(pool: PgPool, kafka: KafkaConfig) -> Self {
        Judge { pool, kafka, barriers: Vec::new() }
    }

    /// One look. Tells whether anything is under way.
    pub(crate) async fn look(&mut self) -> Result<bool, BoxError> {
        let rows: Vec<(String, String, String, i32, i64)> = sqlx::query_as(UNDER_WAY).fetch_all(&self.pool).await?;
        let mut waiting: BTreeMap<Target, Vec<(i32, i64)>> = BTreeMap::new();
        for (group, topic, dlq_topic, partition, first) in rows {
            waiting.entry(Target { group, topic, dlq_topic }).or_default().push((partition, first));
        }
        // A group or a topic that cannot be asked for, because it was deleted or is nobody's business, holds up no other.
        let mut failure: Option<BoxError> = None;
        for (target, firsts) in &waiting {
            if self.barriers.iter().any(|barrier| barrier.target == *target) {
                continue;
            }
            match self.passed(target, firsts).await {
                Ok(barrier) => self.barriers.extend(barrier),
                Err(error) => failure = Some(error.into()),
            }
        }
        for barrier in std::mem::take(&mut self.barriers) {
            match self.is_read(&barrier).await {
                Ok(true) => self.judge(&barrier).await?,
                Ok(false) => self.barriers.push(barrier),
                // Asked for anew at the next look.
                Err(error) => failure = Some(error.into()),
            }
        }
        match failure {
            Some(error) => Err(error),
            None => Ok(sqlx::query_scalar(ANY_UNDER_WAY).fetch_one(&self.pool).await?),
        }
    }

    /// Where the dead letters end, if the group has passed any of the messages sent to it; `firsts` are the first of them
    /// in each partition.
    async fn passed(&self, target: &Target, firsts: &[(i32, i64)]) -> Result<Option<Barrier>, AdminError> {
        let committed = self.committed(&target.group, &target.topic).await?;
        let passed: Vec<(i32, i64)> = firsts
            .iter()
            .filter_map(|(partition, first)| Some((*partition, *committed.get(partition)?, *first)))
            .filter(|(_, committed, first)| committed > first)
            .map(|(partition, committed, _)| (partition, committed))
            .collect();
        if passed.is_empty() {
            return Ok(None);
        }
        let ends = admin::offsets(&self.kafka.bootstrap_servers, &self.kafka.topic(&target.dlq_topic)).await?;
        Ok(Some(Barrier { target: target.clone(), passed, ends }))
    }

    async fn committed(&self, group: &str, topic: &str) -> Result<BTreeMap<i32, i64>, AdminError> {
        let (group, topic) = (self.kafka.group(group), self.kafka.topic(topic));
        let offsets = admin::group_offsets(&self.kafka.bootstrap_servers, &group, &[topic]).await?;
        Ok(offsets.into_iter().map(|((_, partition), offset)| (partition, offset)).collect())
    }

    async fn is_read(&self, barrier: &Barrier) -> Result<bool, AdminError> {
        let read = self.committed(GROUP, &barrier.target.dlq_topic).await?;
        Ok((0..).zip(&barrier.ends).all(|(partition, (first, end))| {
            // Nothing was ever read of a partition that is empty.
            read.get(&partition).copied().unwrap_or(0).max(*first) >= *end
        }))
    }

    async fn judge(&self, Barrier { target, passed, .. }: &Barrier) -> Result<(), sqlx::Error> {
        for (partition, committed) in passed {
            let judged = sqlx::query(JUDGE)
                .bind(&target.group)
                .bind(&target.topic)
                .bind(&target.dlq_topic)
                .bind(partition)
                .bind(committed)
                .execute(&self.pool)
                .await?;
            metrics::REPLAYS.with_label_values(&["reprocessed"]).inc_by(judged.rows_affected());
        }
        Ok(())
    }

    /// Sets the gauge of letters by topic and state.
    pub(crate) async fn count(&self) -> Result<(), sqlx::Error> {
        let rows: Vec<(String, String, i64)> = sqlx::query_as(COUNT).fetch_all(&self.pool).await?;
        // A topic may have no letter in a state any more.
        metrics::LETTERS.reset();
        for (topic, state, count) in rows {
            metrics::LETTERS.with_label_values(&[topic.as_str(), state.as_str()]).set(count);
        }
        Ok(())
    }
}
