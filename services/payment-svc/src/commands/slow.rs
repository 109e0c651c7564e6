//! Charges whose provider answers later. The answer is a row that falls due: no consumer waits for it, it survives a
//! crash at any moment, and an undo takes it away.
//!
//! A round charges what is due and commits, publishes the answers and awaits their acknowledgements, and only then
//! removes the rows. Two replicas may do the same round: one of them charges, both publish the same messages.

use std::time::Duration;

use messaging::{CancellationToken, Cancelled, Delivery, Outgoing, Producer, failpoint};
use orders::messages::PaymentRequested;
use sqlx::postgres::types::PgInterval;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::{Message, SOURCE};
use crate::payment::{Payment, State};
use crate::{GROUP, metrics};

/// The most answers of one round.
const ROUND: i64 = 500;

/// Remembers charges to be answered later.
pub const DEFER: &str = "
    INSERT INTO slow_charges (order_id, due_at, saga_id, step, command_id, traceparent)
    SELECT order_id, now() + $6, saga_id, step, command_id, traceparent
    FROM UNNEST($1::uuid[], $2::uuid[], $3::text[], $4::uuid[], $5::text[])
        AS t (order_id, saga_id, step, command_id, traceparent)";

/// Charges what is due and still pending. Payments are locked in the order of their ids, as everywhere.
pub const FIRE: &str = "
    WITH due AS (
        SELECT order_id FROM slow_charges WHERE due_at <= now() ORDER BY due_at LIMIT $1
    ), pending AS (
        SELECT p.order_id FROM payments p JOIN due USING (order_id)
        WHERE p.state = 'PENDING' ORDER BY p.order_id FOR UPDATE OF p
    ), charged AS (
        UPDATE payments p SET state = 'CHARGED', answered_at = now()
        FROM pending WHERE p.order_id = pending.order_id AND p.state = 'PENDING'
        RETURNING p.order_id, p.amount, p.currency
    )
    INSERT INTO ledger_entries (order_id, kind, debit_account, credit_account, amount, currency)
    SELECT order_id, 'CHARGE', 'receivable', 'revenue', amount, currency FROM charged";

/// The answers that are due, those of an earlier round that was cut short among them.
pub const DUE: &str = "
    SELECT s.saga_id, s.step, s.command_id, s.traceparent,
           p.order_id, p.payment_id, p.state, p.amount, p.currency, p.reason, p.answered_at, p.undone_at
    FROM slow_charges s JOIN payments p USING (order_id)
    WHERE s.due_at <= now() AND p.state <> 'PENDING' ORDER BY s.due_at LIMIT $1";

/// Forgets charges whose answers were acknowledged.
pub const SETTLE: &str = "DELETE FROM slow_charges WHERE order_id = ANY($1)";

/// Makes the answers of `commands` due `after` from now.
pub async fn defer<'b>(
    connection: &mut PgConnection,
    commands: impl Iterator<Item = &'b (&'b Delivery<Message>, &'b PaymentRequested)>,
    after: Duration,
) -> Result<(), messaging::HandlerError> {
    let (mut orders, mut sagas, mut steps) = (Vec::new(), Vec::new(), Vec::new());
    let (mut command_ids, mut traces) = (Vec::new(), Vec::new());
    for (delivery, asked) in commands {
        let poison = |poison| messaging::HandlerError::Poison(Box::new(poison));
        orders.push(asked.order_id);
        sagas.push(delivery.envelope.saga().map_err(poison)?);
        steps.push(delivery.envelope.saga_step().map_err(poison)?);
        command_ids.push(delivery.envelope.id);
        traces.push(delivery.trace.as_deref());
    }
    if orders.is_empty() {
        return Ok(());
    }
    let microseconds = i64::try_from(after.as_micros()).unwrap_or(i64::MAX);
    sqlx::query(DEFER)
        .bind(orders)
        .bind(sagas)
        .bind(steps)
        .bind(command_ids)
        .bind(traces)
        .bind(PgInterval { months: 0, days: 0, microseconds })
        .execute(connection)
        .await?;
    Ok(())
}

#[derive(sqlx::FromRow)]
struct DueAnswer {
    saga_id: Uuid,
    step: String,
    command_id: Uuid,
    traceparent: Option<String>,
    #[sqlx(flatten)]
    payment: Payment,
}

impl DueAnswer {
    fn into_message(self) -> Option<Outgoing> {
        let reply = self.payment.charge_reply()?;
        let subject = self.payment.order_id.to_string();
        Some(Outgoing {
            topic: reply.topic.to_owned(),
            key: subject.clone(),
            id: saga::ids::reply_id(self.saga_id, &self.step),
            event_type: reply.event_type.to_owned(),
            source: SOURCE.to_owned(),
            subject,
            time: reply.time,
            saga_id: Some(self.saga_id),
            definition: None,
            step: Some(self.step),
            causation_id: Some(self.command_id),
            traceparent: self.traceparent,
            payload: reply.payload,
        })
    }
}

/// Answers what is due, every `interval`, until `shutdown`. Failures are counted, logged, and tried again.
pub async fn answer_due(pool: PgPool, producer: Producer, interval: Duration, shutdown: CancellationToken) {
    while !shutdown.is_cancelled() {
        match round(&pool, &producer, &shutdown).await {
            // A full round: there may be more.
            Ok(answered) if answered == ROUND as usize => continue,
            Ok(_) => {}
            Err(RoundError::Shutdown(_)) => return,
            Err(RoundError::Database(error)) => {
                metrics::slow_answers_failed();
                tracing::warn!(error = &error as &dyn std::error::Error, "slow answers were not sent; trying again");
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(interval) => {}
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error("shutting down")]
    Shutdown(#[source] Cancelled),
}

/// One round; returns how many answers were published.
async fn round(pool: &PgPool, producer: &Producer, shutdown: &CancellationToken) -> Result<usize, RoundError> {
    let charged = sqlx::query(FIRE).bind(ROUND).execute(pool).await?.rows_affected();
    if charged > 0 {
        failpoint::hit("timer-after-commit", GROUP);
    }
    for _ in 0..charged {
        metrics::applied("charge", State::Charged.as_str());
    }
    let due: Vec<DueAnswer> = sqlx::query_as(DUE).bind(ROUND).fetch_all(pool).await?;
    if due.is_empty() {
        return Ok(0);
    }
    let orders: Vec<Uuid> = due.iter().map(|answer| answer.payment.order_id).collect();
    let messages: Vec<Outgoing> = due.into_iter().filter_map(DueAnswer::into_message).collect();
    producer.publish(&messages, shutdown).await.map_err(RoundError::Shutdown)?;
    failpoint::hit("timer-before-settle", GROUP);
    sqlx::query(SETTLE).bind(&orders).execute(pool).await?;
    Ok(orders.len())
}
