use futures_util::future::join_all;
use messaging::{Placed, Record, SendError, failpoint};
use service_kit::BoxError;
use uuid::Uuid;

use super::{AT_ONCE, EXPIRE, LOAD_CLAIMED, MARK_SENT, Replays, TAKE_OVER, UNCLAIM};
use crate::letter::{REPLAY_ID, decoded, is_of_letter};
use crate::{GROUP, metrics};

type ClaimedRow = (Uuid, Uuid, String, Option<Vec<u8>>, Option<Vec<u8>>, String);

impl Replays {
    /// Sends claimed letters and marks them. Gives those that were surely not sent, which are claimed no more, with the
    /// cause. One whose outcome is unknown stays claimed, and is sent again when its claim has run out.
    pub(crate) async fn deliver(&self, ids: &[Uuid], result: &str) -> Result<Vec<(Uuid, String)>, BoxError> {
        let mut refused = Vec::new();
        for part in ids.chunks(AT_ONCE) {
            let rows: Vec<ClaimedRow> = sqlx::query_as(LOAD_CLAIMED).bind(part).fetch_all(&self.pool).await?;
            let mut messages = Vec::with_capacity(rows.len());
            for row in rows {
                let (id, replay) = (row.0, row.1);
                match message(row) {
                    Ok(record) => messages.push((id, replay, record)),
                    // Only `stored` writes headers. If somebody else has, that is no reason to hold up the others.
                    Err(error) => refused.push(self.unclaim(id, replay, format!("no headers: {error}")).await?),
                }
            }
            failpoint::hit("replay-before-produce", GROUP);
            // In their order: all of them are queued before the first is waited for.
            let outcomes = join_all(messages.iter().map(|(_, _, record)| self.producer.send(record))).await;
            failpoint::hit("replay-after-produce", GROUP);
            let mut sent: Vec<(Uuid, Uuid, Placed)> = Vec::new();
            for ((id, replay, record), outcome) in messages.iter().zip(outcomes) {
                match outcome {
                    Ok(place) => sent.push((*id, *replay, place)),
                    Err(SendError::Refused(why)) => {
                        let why = format!("{} does not take it: {why}", record.topic);
                        refused.push(self.unclaim(*id, *replay, why).await?);
                    }
                    Err(SendError::Unknown(error)) => {
                        tracing::warn!(letter = %id, %error, "a replay was not acknowledged: it is sent again later");
                    }
                }
            }
            self.mark(&sent).await?;
            metrics::REPLAYS.with_label_values(&[result]).inc_by(sent.len() as u64);
        }
        Ok(refused)
    }

    async fn unclaim(&self, id: Uuid, replay: Uuid, why: String) -> Result<(Uuid, String), sqlx::Error> {
        sqlx::query(UNCLAIM).bind(id).bind(replay).bind(&why).execute(&self.pool).await?;
        metrics::REPLAYS.with_label_values(&["not-sent"]).inc();
        Ok((id, why))
    }

    async fn mark(&self, sent: &[(Uuid, Uuid, Placed)]) -> Result<(), sqlx::Error> {
        if sent.is_empty() {
            return Ok(());
        }
        sqlx::query(MARK_SENT)
            .bind(sent.iter().map(|(id, ..)| *id).collect::<Vec<_>>())
            .bind(sent.iter().map(|(_, replay, _)| *replay).collect::<Vec<_>>())
            .bind(sent.iter().map(|(.., place)| place.partition).collect::<Vec<_>>())
            .bind(sent.iter().map(|(.., place)| place.offset).collect::<Vec<_>>())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Sends again what was claimed and not marked in time.
    pub(crate) async fn recover(&self) -> Result<(), BoxError> {
        let ids: Vec<Uuid> = sqlx::query_scalar(TAKE_OVER)
            .bind(self.config.claim_ms as f64)
            .bind(AT_ONCE as i64)
            .fetch_all(&self.pool)
            .await?;
        if !ids.is_empty() {
            tracing::warn!(letters = ids.len(), "claimed letters were not marked as sent: they are sent again");
            self.deliver(&ids, "sent-again").await?;
        }
        Ok(())
    }

    /// Shows as UNCONFIRMED what nobody could confirm in time.
    pub(crate) async fn expire(&self) -> Result<(), sqlx::Error> {
        let patience = self.config.confirm_within_ms as f64;
        let expired = sqlx::query(EXPIRE).bind(patience).execute(&self.pool).await?.rows_affected();
        if expired > 0 {
            tracing::warn!(
                letters = expired,
                "what became of replays is not known in time: does their group still run?"
            );
            metrics::REPLAYS.with_label_values(&["unconfirmed"]).inc_by(expired);
        }
        Ok(())
    }
}

/// The message of a claimed letter: as it was, or was edited, without what was added with the letter, and with the id of
/// its replay.
fn message((_, replay, topic, key, payload, headers): ClaimedRow) -> Result<Record, serde_json::Error> {
    let mut headers = decoded(&headers)?;
    headers.retain(|(name, _)| !is_of_letter(name));
    headers.push((REPLAY_ID.to_owned(), Some(replay.to_string().into_bytes())));
    Ok(Record { topic, partition: -1, offset: -1, timestamp_ms: None, key, payload, headers })
}
