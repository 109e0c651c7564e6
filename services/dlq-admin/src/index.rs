//! Every dead letter topic, read into the database.

use messaging::{
    BatchHandler, Delivery, Envelope, HandlerError, Outgoing, Poison, Record, async_trait, is_unavailable,
};
use sqlx::PgPool;

use crate::letter::Letter;
use crate::metrics;

/// Inserts the letters that are new. One that is the end of a replay marks the letter which was replayed; that counts
/// for the group alone that it was replayed for, since others read the topic too. Of a letter that names no group nobody
/// can say for whom it was replayed, so that any group's counts.
pub const INDEX: &str = "
WITH letters AS (
    SELECT * FROM UNNEST($1::uuid[], $2::text[], $3::integer[], $4::bigint[], $5::timestamptz[], $6::text[], $7::text[],
        $8::text[], $9::integer[], $10::bigint[], $11::timestamptz[], $12::bytea[], $13::text[], $14::bytea[],
        $15::text[], $16::text[], $17::text[], $18::integer[], $19::timestamptz[], $20::text[], $21::boolean[],
        $22::uuid[], $23::uuid[])
    WITH ORDINALITY AS t (id, topic, partition, \"offset\", origin_at, group_name, source_format, dlq_topic, dlq_partition,
        dlq_offset, dlq_at, key, key_text, payload, headers, reason, error, attempts, first_failed_at, fingerprint,
        truncated, saga_id, came_as, position)
), fresh AS (
    INSERT INTO letter (id, topic, partition, \"offset\", origin_at, group_name, source_format, dlq_topic, dlq_partition,
        dlq_offset, dlq_at, key, key_text, payload, headers, reason, error, attempts, first_failed_at, fingerprint,
        truncated, saga_id, came_as, replay_of)
    SELECT id, topic, partition, \"offset\", origin_at, group_name, source_format, dlq_topic, dlq_partition, dlq_offset,
        dlq_at, key, key_text, payload, headers::json, reason, error, attempts, first_failed_at, fingerprint, truncated,
        saga_id, came_as,
        (SELECT o.id FROM letter o WHERE o.replay_id = l.came_as AND o.group_name IN (l.group_name, ''))
    FROM letters l ORDER BY position
    ON CONFLICT (id) DO NOTHING
    RETURNING id, group_name, came_as, source_format
), failed AS (
    UPDATE letter o SET state = 'FAILED_AGAIN', state_at = now(), failed_as = f.id
    FROM (SELECT DISTINCT ON (came_as, group_name) id, came_as, group_name FROM fresh WHERE came_as IS NOT NULL) f
    WHERE o.replay_id = f.came_as AND o.group_name IN (f.group_name, '')
      AND o.state IN ('REPLAYING', 'SENT', 'UNCONFIRMED', 'REPROCESSED')
    RETURNING o.id, o.replay_id, o.failed_as
), told AS (
    INSERT INTO letter_history (letter_id, event, replay_id, detail)
    SELECT id, 'FAILED_AGAIN', replay_id, 'as ' || failed_as FROM failed
)
SELECT source_format, count(*), (SELECT count(*) FROM failed) FROM fresh GROUP BY 1";

/// Puts letters of any shape into the database, each once.
pub struct Indexer {
    pool: PgPool,
    prefix: String,
}

impl Indexer {
    /// Works in the database behind `pool`; `prefix` is the deployment's, which names from outside may have.
    pub fn new(pool: PgPool, prefix: String) -> Self {
        Indexer { pool, prefix }
    }
}

#[async_trait]
impl BatchHandler for Indexer {
    type Message = Letter;

    fn decode(&self, record: &Record, _: &Envelope) -> Result<Letter, Poison> {
        Ok(Letter::read(record, &self.prefix))
    }

    async fn handle(&self, batch: &[Delivery<Letter>]) -> Result<Vec<Outgoing>, HandlerError> {
        let letters: Vec<&Letter> = batch.iter().map(|delivery| &delivery.message).collect();
        match self.insert(&letters).await {
            Ok(()) => {}
            Err(error) if is_unavailable(&error) => return Err(error.into()),
            // One of them is refused. The others are not to wait for it.
            Err(_) => {
                for letter in letters {
                    self.insert_alone(letter).await?;
                }
            }
        }
        Ok(Vec::new())
    }
}

impl Indexer {
    /// Inserts one letter: what PostgreSQL refuses whole is listed without its message, which stays on its topic. If that is
    /// refused too it is not the letter's fault, and it waits.
    async fn insert_alone(&self, letter: &Letter) -> Result<(), HandlerError> {
        match self.insert(&[letter]).await {
            Err(error) if !is_unavailable(&error) => {
                self.insert(&[&letter.reduced(&error.to_string())]).await?;
                tracing::error!(letter = %letter.id, topic = letter.dlq.0, partition = letter.dlq.1,
                    offset = letter.dlq.2, %error, "the database refuses a letter: it is listed without its message");
                Ok(())
            }
            result => Ok(result?),
        }
    }

    async fn insert(&self, letters: &[&Letter]) -> Result<(), sqlx::Error> {
        macro_rules! column {
            ($letter:ident => $value:expr) => {
                letters.iter().map(|$letter| $value).collect::<Vec<_>>()
            };
        }
        let fresh: Vec<(String, i64, i64)> = sqlx::query_as(INDEX)
            .bind(column!(letter => letter.id))
            .bind(column!(letter => letter.origin.topic.as_str()))
            .bind(column!(letter => letter.origin.partition))
            .bind(column!(letter => letter.origin.offset))
            .bind(column!(letter => letter.origin.at))
            .bind(column!(letter => letter.origin.group.as_str()))
            .bind(column!(letter => letter.origin.format.as_str()))
            .bind(column!(letter => letter.dlq.0.as_str()))
            .bind(column!(letter => letter.dlq.1))
            .bind(column!(letter => letter.dlq.2))
            .bind(column!(letter => letter.dlq_at))
            .bind(column!(letter => letter.key.as_deref()))
            .bind(column!(letter => letter.key_text.as_deref()))
            .bind(column!(letter => letter.payload.as_deref()))
            .bind(column!(letter => letter.headers.as_str()))
            .bind(column!(letter => letter.origin.reason.as_str()))
            .bind(column!(letter => letter.origin.error.as_str()))
            .bind(column!(letter => letter.origin.attempts))
            .bind(column!(letter => letter.origin.first_failed_at))
            .bind(column!(letter => letter.fingerprint.as_str()))
            .bind(column!(letter => letter.truncated))
            .bind(column!(letter => letter.saga))
            .bind(column!(letter => letter.came_as))
            .fetch_all(&self.pool)
            .await?;
        for (format, count, _) in &fresh {
            metrics::INDEXED.with_label_values(&[format.as_str()]).inc_by(count.unsigned_abs());
        }
        let failed = fresh.first().map_or(0, |(_, _, failed)| failed.unsigned_abs());
        metrics::REPLAYS.with_label_values(&["failed-again"]).inc_by(failed);
        Ok(())
    }
}
