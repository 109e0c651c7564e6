//! What became of a replay.
//!
//! A message that was sent back is reprocessed when the group that it is for has committed an offset behind it and no new
//! letter carries the replay's id. A letter is on its topic before the group commits. So the order is: see the commit,
//! ask where the dead letter topic ends, wait until this service has read up to there, look.
//!
//! Its topic may lose the message before the group has read it: deleted and made again, or removed by retention. Then the
//! group comes past its offset all the same, with another message or with none, and that proves nothing.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use messaging::KafkaConfig;
use messaging::admin::{AdminError, Observer};
use service_kit::BoxError;
use sqlx::PgPool;

use crate::{GROUP, metrics};

/// What is sent and not judged, by where its group must have come: the first and the last place in each partition.
pub const UNDER_WAY: &str = "
SELECT group_name, topic, dlq_topic, sent_partition, min(sent_offset), max(sent_offset)
FROM letter WHERE state = ANY($1) AND group_name <> '' AND sent_offset IS NOT NULL
GROUP BY 1, 2, 3, 4";

/// Whether something is claimed or sent, also by others.
pub const ANY_UNDER_WAY: &str =
    "SELECT EXISTS (SELECT FROM letter WHERE state IN ('REPLAYING', 'SENT') AND group_name <> '')";

/// Those below the offset $5 are reprocessed: had one failed again, its letter would have been found by now.
pub const JUDGE: &str = "
WITH done AS (
    UPDATE letter SET state = 'REPROCESSED', state_at = now()
    WHERE state IN ('SENT', 'UNCONFIRMED') AND group_name = $1 AND topic = $2 AND dlq_topic = $3 AND sent_partition = $4
      AND sent_offset < $5
    RETURNING id, replay_id
)
INSERT INTO letter_history (letter_id, event, replay_id) SELECT id, 'REPROCESSED', replay_id FROM done";

/// Of what the group has not passed, from the offset $5 to $6, those that the topic does not hold any more, which begins at $7
/// and ends at $8. They have no place from then on; an operator can send them again.
pub const LOSE: &str = "
WITH lost AS (
    UPDATE letter SET state = 'UNCONFIRMED', state_at = now(), sent_partition = NULL, sent_offset = NULL
    WHERE state IN ('SENT', 'UNCONFIRMED') AND group_name = $1 AND topic = $2 AND dlq_topic = $3 AND sent_partition = $4
      AND sent_offset BETWEEN $5 AND $6 AND (sent_offset < $7 OR sent_offset >= $8)
    RETURNING id, replay_id
)
INSERT INTO letter_history (letter_id, event, replay_id, detail)
SELECT id, 'UNCONFIRMED', replay_id, 'the message is not on its topic any more' FROM lost";

/// Letters by topic and state, from the counts that are kept.
pub const COUNT: &str = "
SELECT g.topic, c.state, sum(c.count)::bigint FROM letter_count c JOIN letter_group g USING (fingerprint)
GROUP BY 1, 2 HAVING sum(c.count) > 0";

/// How often is looked at what was not confirmed in time: its group may be back, or never come.
const SECOND_LOOK: Duration = Duration::from_secs(15);
/// Questions to the broker at once.
const QUESTIONS: usize = 8;

/// For whom messages were sent: the group, the topic, and where they go when they fail again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Target {
    group: String,
    topic: String,
    dlq_topic: String,
}

/// A partition with the first and the last offset at which it has messages that are not judged.
type Places = (i32, i64, i64);

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
    observer: Observer,
    barriers: Vec<Barrier>,
    looked_again: Option<Instant>,
}

impl Judge {
    pub(crate) fn new(pool: PgPool, kafka: KafkaConfig) -> Self {
        Judge { pool, observer: Observer::new(kafka), barriers: Vec::new(), looked_again: None }
    }

    /// One look. Tells whether anything is under way.
    pub(crate) async fn look(&mut self) -> Result<bool, BoxError> {
        let (waiting, again) = self.waiting().await?;
        let fresh: Vec<_> = waiting
            .iter()
            .filter(|(target, _)| self.barriers.iter().all(|barrier| barrier.target != **target))
            .collect();
        // A group or a topic that cannot be asked for, because it was deleted or is nobody's business, holds up no other.
        let mut failure: Option<BoxError> = None;
        let mut barriers = std::mem::take(&mut self.barriers);
        for part in fresh.chunks(QUESTIONS) {
            for found in join_all(part.iter().map(|(target, places)| self.passed(target, places))).await {
                match found {
                    Ok(barrier) => barriers.extend(barrier),
                    Err(error) => failure = Some(error.into()),
                }
            }
        }
        for barrier in barriers {
            match self.is_read(&barrier).await {
                Ok(true) => self.judge(&barrier).await?,
                Ok(false) => self.barriers.push(barrier),
                // Asked for anew at the next look.
                Err(error) => failure = Some(error.into()),
            }
        }
        if again {
            for (target, places) in &waiting {
                if let Err(error) = self.lose(target, places).await {
                    failure = Some(error);
                }
            }
        }
        match failure {
            Some(error) => Err(error),
            None => Ok(sqlx::query_scalar(ANY_UNDER_WAY).fetch_one(&self.pool).await?),
        }
    }

    /// Who is waited for, and where. At times that includes what was not confirmed; tells whether it does.
    async fn waiting(&mut self) -> Result<(BTreeMap<Target, Vec<Places>>, bool), sqlx::Error> {
        let again = self.looked_again.is_none_or(|looked| looked.elapsed() >= SECOND_LOOK);
        let states: &[&str] = if again { &["SENT", "UNCONFIRMED"] } else { &["SENT"] };
        let rows: Vec<(String, String, String, i32, i64, i64)> =
            sqlx::query_as(UNDER_WAY).bind(states).fetch_all(&self.pool).await?;
        if again {
            self.looked_again = Some(Instant::now());
            // Between two of these looks a connection is kept also when nothing is sent for its group.
            let groups: HashSet<&str> = rows.iter().map(|(group, ..)| group.as_str()).collect();
            self.observer.forget_all_but(&groups.into_iter().chain([GROUP]).collect());
        }
        let mut waiting: BTreeMap<Target, Vec<Places>> = BTreeMap::new();
        for (group, topic, dlq_topic, partition, first, last) in rows {
            waiting.entry(Target { group, topic, dlq_topic }).or_default().push((partition, first, last));
        }
        Ok((waiting, again))
    }

    /// Where the dead letters end, if the group has passed any of the messages sent to it.
    async fn passed(&self, target: &Target, places: &[Places]) -> Result<Option<Barrier>, AdminError> {
        let committed = self.observer.committed(&target.group, &target.topic).await?;
        let passed: Vec<(i32, i64)> = places
            .iter()
            .filter_map(|(partition, first, _)| Some((*partition, *committed.get(partition)?, *first)))
            .filter(|(_, committed, first)| committed > first)
            .map(|(partition, committed, _)| (partition, committed))
            .collect();
        if passed.is_empty() {
            return Ok(None);
        }
        let ends = self.observer.ends(&target.dlq_topic).await?;
        Ok(Some(Barrier { target: target.clone(), passed, ends }))
    }

    /// Takes their place from messages that their topic has lost before the group has passed them. All `places` were there
    /// before the topic is asked for its ends, so what lies outside of these is gone.
    async fn lose(&self, target: &Target, places: &[Places]) -> Result<(), BoxError> {
        let committed = self.observer.committed(&target.group, &target.topic).await?;
        let ends = self.observer.ends(&target.topic).await?;
        for (partition, first, last) in places {
            // While there is no such topic, nobody knows whether it comes back.
            let Some((begin, end)) = usize::try_from(*partition).ok().and_then(|index| ends.get(index)) else {
                continue;
            };
            if first >= begin && last < end {
                continue;
            }
            // Not what somebody has sent again meanwhile, before the first that was there.
            let from = committed.get(partition).map_or(*first, |passed| *first.max(passed));
            let lost = sqlx::query(LOSE)
                .bind(&target.group)
                .bind(&target.topic)
                .bind(&target.dlq_topic)
                .bind(partition)
                .bind(from)
                .bind(last)
                .bind(begin)
                .bind(end)
                .execute(&self.pool)
                .await?
                .rows_affected();
            if lost > 0 {
                tracing::error!(
                    letters = lost,
                    topic = target.topic,
                    consumer.group = target.group,
                    "replays are gone from their topic, and their group has not passed them: send them again"
                );
                metrics::REPLAYS.with_label_values(&["unconfirmed"]).inc_by(lost);
            }
        }
        Ok(())
    }

    /// Whether the index has read the dead letters up to the barrier. What retention has removed meanwhile is nothing to wait
    /// for; the index commits behind the marks of transactions too, which are given to nobody.
    async fn is_read(&self, barrier: &Barrier) -> Result<bool, AdminError> {
        let read = self.observer.committed(GROUP, &barrier.target.dlq_topic).await?;
        let reached = |now: &[(i64, i64)]| {
            (0..).zip(&barrier.ends).zip(now).all(|((partition, (_, end)), (first, _))| {
                // Nothing was ever read of a partition that is empty.
                read.get(&partition).copied().unwrap_or(0).max(*first) >= *end
            })
        };
        Ok(reached(&barrier.ends) || reached(&self.observer.ends(&barrier.target.dlq_topic).await?))
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
