//! What this service does when asked over Kafka: a batch of commands in, one transaction, their answers out.

pub mod schedule;

use std::collections::{BTreeMap, BTreeSet};

use messaging::participant::{self, Answers, Rows};
use messaging::{BatchHandler, Delivery, Envelope, HandlerError, Outgoing, Poison, Record, async_trait, failpoint};
use orders::messages::{ShippingCancelRequested, ShippingRequested};
use orders::topics;
use sqlx::{Connection, PgPool};
use uuid::Uuid;

use crate::shipment::{Shipment, stored};
use crate::{GROUP, metrics};

/// `ce_source` of this service's answers.
pub const SOURCE: &str = "/chaos-symphony/shipping-svc";

/// A command to this service.
#[derive(Clone, Debug)]
pub enum Message {
    /// Book.
    Schedule(ShippingRequested),
    /// Undo the booking.
    Cancel(ShippingCancelRequested),
}

impl Message {
    fn order_id(&self) -> Uuid {
        match self {
            Message::Schedule(asked) => asked.order_id,
            Message::Cancel(asked) => asked.order_id,
        }
    }
}

/// Handles both topics of the shipping step, so that a command and its undo are never handled side by side.
pub struct ShippingCommands {
    pool: PgPool,
}

impl ShippingCommands {
    /// Works in the database behind `pool`.
    pub fn new(pool: PgPool) -> Self {
        ShippingCommands { pool }
    }
}

#[async_trait]
impl BatchHandler for ShippingCommands {
    type Message = Message;

    fn decode(&self, record: &Record, envelope: &Envelope) -> Result<Message, Poison> {
        if record.topic == topics::SHIPPING_CANCEL_REQUESTED.name {
            return participant::command(record, envelope, |m: &ShippingCancelRequested| m.order_id)
                .map(Message::Cancel);
        }
        participant::command(record, envelope, |m: &ShippingRequested| m.order_id).map(Message::Schedule)
    }

    async fn handle(&self, batch: &[Delivery<Message>]) -> Result<Vec<Outgoing>, HandlerError> {
        // An order is booked by the first command for it, unless its undo came even before that in this batch: then the
        // undo goes first, and finds the booking of an earlier batch or leaves its tombstone.
        let (mut bookings, mut cancels) = (BTreeMap::new(), BTreeSet::new());
        for delivery in batch {
            match &delivery.message {
                Message::Schedule(asked) if !cancels.contains(&asked.order_id) => {
                    bookings.entry(asked.order_id).or_insert(asked);
                }
                Message::Schedule(_) => {}
                Message::Cancel(asked) => {
                    cancels.insert(asked.order_id);
                }
            }
        }

        let mut connection = self.pool.acquire().await?;
        let (scheduled, undone);
        if cancels.is_empty() {
            // A single statement is its own transaction, in one round trip instead of three.
            scheduled = schedule::schedule(&mut connection, &bookings).await?;
            undone = Vec::new();
        } else {
            let mut transaction = connection.begin().await?;
            scheduled = schedule::schedule(&mut transaction, &bookings).await?;
            undone = schedule::cancel(&mut transaction, &cancels).await?;
            failpoint::hit("in-transaction", GROUP);
            transaction.commit().await?;
        }

        let commands = batch.iter().filter(|delivery| matches!(delivery.message, Message::Schedule(_))).count();
        metrics::duplicates("schedule", commands - scheduled.len());
        metrics::duplicates("cancel", batch.len() - commands - undone.len());
        scheduled.iter().for_each(|shipment| metrics::applied("schedule", shipment.state.as_str()));
        undone.iter().for_each(schedule::Undone::count);

        // What the undo returned is newer than what the booking returned.
        let changed = scheduled.into_iter().chain(undone.into_iter().map(|undone| undone.shipment));
        let mut shipments = Rows::new(changed.map(|shipment| (shipment.order_id, shipment)));
        let unchanged = shipments.missing(batch.iter().map(|delivery| delivery.message.order_id()));
        if !unchanged.is_empty() {
            let stored = stored(&mut *connection, &unchanged).await?;
            shipments.add(stored.into_iter().map(|shipment| (shipment.order_id, shipment)));
        }
        answers(batch, &shipments)
    }
}

fn answers(batch: &[Delivery<Message>], shipments: &Rows<Shipment>) -> Result<Vec<Outgoing>, HandlerError> {
    let mut answers = Answers::new(SOURCE);
    for delivery in batch {
        let shipment = shipments.of(delivery.message.order_id())?;
        match delivery.message {
            Message::Schedule(_) => answers.push(delivery, saga::ids::reply_id, shipment.schedule_reply())?,
            Message::Cancel(_) => answers.push(delivery, saga::ids::undo_reply_id, shipment.cancel_reply())?,
        }
    }
    Ok(answers.into_messages())
}
