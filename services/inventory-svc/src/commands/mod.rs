//! What this service does when told over Kafka: a batch of messages in, one transaction, the answers out.

pub mod complete;
pub mod reserve;

use std::collections::{BTreeSet, HashSet};

use messaging::participant::{self, Answers, Rows};
use messaging::{BatchHandler, Delivery, Envelope, HandlerError, Outgoing, Poison, Record, async_trait, failpoint};
use orders::messages::{InventoryReleaseRequested, InventoryRequested, OrderEnded};
use orders::topics;
use sqlx::{Connection, PgConnection, PgPool};
use uuid::Uuid;

use crate::reservation::{Line, Reservation, State, stored, sum_by_sku};
use crate::stock::{self, Moves};
use crate::{GROUP, metrics};

/// `ce_source` of this service's answers.
pub const SOURCE: &str = "/chaos-symphony/inventory-svc";

/// What this service is told.
#[derive(Clone, Debug)]
pub enum Message {
    /// Set aside.
    Reserve(InventoryRequested),
    /// Undo that.
    Release(InventoryReleaseRequested),
    /// The order completed.
    Complete(OrderEnded),
}

impl Message {
    fn order_id(&self) -> Uuid {
        match self {
            Message::Reserve(asked) => asked.order_id,
            Message::Release(asked) => asked.order_id,
            Message::Complete(ended) => ended.order_id,
        }
    }
}

/// Handles the topics of the inventory step and the ends of orders, so that no two messages of an order are handled side
/// by side.
pub struct InventoryCommands {
    pool: PgPool,
}

impl InventoryCommands {
    /// Works in the database behind `pool`.
    pub fn new(pool: PgPool) -> Self {
        InventoryCommands { pool }
    }
}

#[async_trait]
impl BatchHandler for InventoryCommands {
    type Message = Message;

    fn decode(&self, record: &Record, envelope: &Envelope) -> Result<Message, Poison> {
        if record.topic == topics::ORDER_COMPLETED.name {
            return participant::about(record, envelope, |m: &OrderEnded| m.order_id).map(Message::Complete);
        }
        if record.topic == topics::INVENTORY_RELEASE_REQUESTED.name {
            return participant::command(record, envelope, |m: &InventoryReleaseRequested| m.order_id)
                .map(Message::Release);
        }
        let asked = participant::command(record, envelope, |m: &InventoryRequested| m.order_id)?;
        if asked.items.is_empty() || asked.items.iter().any(|item| item.quantity == 0) {
            return Err(Poison::new("invalid-items", "a reservation needs lines, and a line at least one piece"));
        }
        Ok(Message::Reserve(asked))
    }

    async fn handle(&self, batch: &[Delivery<Message>]) -> Result<Vec<Outgoing>, HandlerError> {
        let work = Work::of(batch);
        let mut connection = self.pool.acquire().await?;
        let done = loop {
            let mut transaction = connection.begin().await?;
            if let Some(done) = work.apply(&mut transaction).await? {
                failpoint::hit("in-transaction", GROUP);
                transaction.commit().await?;
                break done;
            }
            transaction.rollback().await?;
        };

        done.reserved.iter().for_each(|reservation| metrics::applied("reserve", reservation.state.as_str()));
        done.undone.iter().for_each(reserve::Undone::count);
        for _ in done.unchanged_ends.len()..work.ends.len() {
            metrics::applied("complete", State::Shipped.as_str());
        }
        let count = |wanted: fn(&Message) -> bool| batch.iter().filter(|delivery| wanted(&delivery.message)).count();
        let reserves = count(|message| matches!(message, Message::Reserve(_)));
        let releases = count(|message| matches!(message, Message::Release(_)));
        metrics::duplicates("reserve", reserves - done.reserved.len());
        metrics::duplicates("release", releases - done.undone.len());

        // What the undo returned is newer than what the command returned.
        let changed = done.reserved.into_iter().chain(done.undone.into_iter().map(|undone| undone.reservation));
        let mut reservations = Rows::new(changed.map(|reservation| (reservation.order_id, reservation)));
        let commands = work.reserves.iter().map(|(order_id, _)| order_id).chain(&work.releases);
        let missing = reservations.missing(commands.chain(&done.unchanged_ends).copied());
        if !missing.is_empty() {
            let stored = stored(&mut *connection, &missing).await?;
            reservations.add(stored.into_iter().map(|reservation| (reservation.order_id, reservation)));
        }
        for order_id in done.unchanged_ends {
            complete::count_unchanged(order_id, reservations.get(order_id));
        }
        answers(batch, &reservations)
    }
}

/// A batch, sorted by what is to be done.
struct Work {
    orders: Vec<Uuid>,
    /// In the order in which they came. An order is decided by its first command, unless its undo came even before that
    /// in this batch: then the undo goes first, and finds the reservation of an earlier batch or leaves its tombstone.
    reserves: Vec<(Uuid, Vec<Line>)>,
    releases: BTreeSet<Uuid>,
    ends: BTreeSet<Uuid>,
}

/// What a batch changed.
struct Done {
    reserved: Vec<Reservation>,
    undone: Vec<reserve::Undone>,
    unchanged_ends: BTreeSet<Uuid>,
}

impl Work {
    fn of(batch: &[Delivery<Message>]) -> Self {
        let mut work =
            Work { orders: Vec::new(), reserves: Vec::new(), releases: BTreeSet::new(), ends: BTreeSet::new() };
        let mut reserving = HashSet::new();
        for delivery in batch {
            match &delivery.message {
                Message::Reserve(asked) => {
                    if !work.releases.contains(&asked.order_id) && reserving.insert(asked.order_id) {
                        work.reserves.push((asked.order_id, sum_by_sku(&asked.items)));
                    }
                }
                Message::Release(asked) => {
                    work.releases.insert(asked.order_id);
                }
                Message::Complete(ended) => {
                    work.ends.insert(ended.order_id);
                }
            }
        }
        work.orders = reserving.into_iter().chain(work.releases.iter().chain(&work.ends).copied()).collect();
        work
    }

    /// Applies it under the locks of its stock. `None`: roll back and start again.
    async fn apply(&self, connection: &mut PgConnection) -> Result<Option<Done>, HandlerError> {
        let wanted: Vec<(Uuid, &str)> = self
            .reserves
            .iter()
            .flat_map(|(order_id, lines)| lines.iter().map(|line| (*order_id, line.sku.as_str())))
            .collect();
        let moving: Vec<Uuid> = self.releases.iter().chain(&self.ends).copied().collect();
        let mut locked = stock::lock(connection, &self.orders, &wanted, &moving).await?;

        let mut moves = Moves::default();
        let Some(reserved) = reserve::reserve(connection, &self.reserves, &mut locked, &mut moves).await? else {
            return Ok(None);
        };
        let undone = reserve::release(connection, &self.releases, &mut moves).await?;
        let unchanged_ends = complete::complete(connection, &self.ends, &mut moves).await?;
        moves.apply(connection).await?;
        Ok(Some(Done { reserved, undone, unchanged_ends }))
    }
}

fn answers(batch: &[Delivery<Message>], reservations: &Rows<Reservation>) -> Result<Vec<Outgoing>, HandlerError> {
    let mut answers = Answers::new(SOURCE);
    for delivery in batch {
        let reservation = || reservations.of(delivery.message.order_id());
        match delivery.message {
            Message::Reserve(_) => answers.push(delivery, saga::ids::reply_id, reservation()?.reserve_reply())?,
            Message::Release(_) => answers.push(delivery, saga::ids::undo_reply_id, reservation()?.release_reply())?,
            Message::Complete(_) => {}
        }
    }
    Ok(answers.into_messages())
}
