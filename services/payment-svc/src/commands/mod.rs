//! What this service does when asked over Kafka: a batch of commands in, one transaction, their answers out.

pub mod charge;
pub mod slow;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use messaging::participant::{self, Answers, Rows};
use messaging::{BatchHandler, Delivery, Envelope, HandlerError, Outgoing, Poison, Record, async_trait, failpoint};
use orders::messages::{PaymentRefundRequested, PaymentRequested};
use orders::topics;
use sqlx::{Connection, PgPool};
use uuid::Uuid;

use crate::payment::{Payment, stored};
use crate::{GROUP, metrics};

/// `ce_source` of this service's answers.
pub const SOURCE: &str = "/chaos-symphony/payment-svc";

/// A command to this service.
#[derive(Clone, Debug)]
pub enum Message {
    /// Charge.
    Charge(PaymentRequested),
    /// Undo the charge.
    Refund(PaymentRefundRequested),
}

impl Message {
    fn order_id(&self) -> Uuid {
        match self {
            Message::Charge(asked) => asked.order_id,
            Message::Refund(asked) => asked.order_id,
        }
    }
}

/// Handles both topics of the payment step, so that a command and its undo are never handled side by side.
pub struct PaymentCommands {
    pool: PgPool,
    slow_after: Duration,
}

impl PaymentCommands {
    /// Works in the database behind `pool`; slow charges are answered `slow_after` their first command.
    pub fn new(pool: PgPool, slow_after: Duration) -> Self {
        PaymentCommands { pool, slow_after }
    }
}

#[async_trait]
impl BatchHandler for PaymentCommands {
    type Message = Message;

    fn decode(&self, record: &Record, envelope: &Envelope) -> Result<Message, Poison> {
        if record.topic == topics::PAYMENT_REFUND_REQUESTED.name {
            return participant::command(record, envelope, |m: &PaymentRefundRequested| m.order_id)
                .map(Message::Refund);
        }
        let asked = participant::command(record, envelope, |m: &PaymentRequested| m.order_id)?;
        if asked.amount < 1 {
            return Err(Poison::new("invalid-amount", format!("an amount of {} cannot be charged", asked.amount)));
        }
        Ok(Message::Charge(asked))
    }

    async fn handle(&self, batch: &[Delivery<Message>]) -> Result<Vec<Outgoing>, HandlerError> {
        // An order is charged by the first command for it, unless its undo came even before that in this batch: then
        // the undo goes first, and finds the charge of an earlier batch or leaves its tombstone.
        let (mut charges, mut refunds) = (BTreeMap::new(), BTreeSet::new());
        for delivery in batch {
            match &delivery.message {
                Message::Charge(asked) if !refunds.contains(&asked.order_id) => {
                    charges.entry(asked.order_id).or_insert((delivery, asked));
                }
                Message::Charge(_) => {}
                Message::Refund(asked) => {
                    refunds.insert(asked.order_id);
                }
            }
        }

        let mut connection = self.pool.acquire().await?;
        let (charged, undone);
        if refunds.is_empty() && !charge::any_slow(&charges) {
            // A single statement is its own transaction, in one round trip instead of three.
            charged = charge::charge(&mut connection, &charges, self.slow_after).await?;
            undone = Vec::new();
        } else {
            let mut transaction = connection.begin().await?;
            charged = charge::charge(&mut transaction, &charges, self.slow_after).await?;
            undone = charge::refund(&mut transaction, &refunds).await?;
            failpoint::hit("in-transaction", GROUP);
            transaction.commit().await?;
        }

        let commands = batch.iter().filter(|delivery| matches!(delivery.message, Message::Charge(_))).count();
        metrics::duplicates("charge", commands - charged.len());
        metrics::duplicates("refund", batch.len() - commands - undone.len());
        charged.iter().for_each(|payment| metrics::applied("charge", payment.state.as_str()));
        undone.iter().for_each(charge::Undone::count);

        // What the undo returned is newer than what the charge returned.
        let changed = charged.into_iter().chain(undone.into_iter().map(|undone| undone.payment));
        let mut payments = Rows::new(changed.map(|payment| (payment.order_id, payment)));
        let unchanged = payments.missing(batch.iter().map(|delivery| delivery.message.order_id()));
        if !unchanged.is_empty() {
            let stored = stored(&mut *connection, &unchanged).await?;
            payments.add(stored.into_iter().map(|payment| (payment.order_id, payment)));
        }
        answers(batch, &payments)
    }
}

fn answers(batch: &[Delivery<Message>], payments: &Rows<Payment>) -> Result<Vec<Outgoing>, HandlerError> {
    let mut answers = Answers::new(SOURCE);
    for delivery in batch {
        let payment = payments.of(delivery.message.order_id())?;
        match delivery.message {
            Message::Charge(_) => answers.push(delivery, saga::ids::reply_id, payment.charge_reply())?,
            Message::Refund(_) => answers.push(delivery, saga::ids::undo_reply_id, payment.refund_reply())?,
        }
    }
    Ok(answers.into_messages())
}
