//! Requests that arrive together become durable together: a bounded queue, and a few workers that insert whatever is
//! waiting by one statement. An idle worker takes a lone order at once; a busy one finds a batch when it is back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::PgPool;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::{sleep, timeout, timeout_at};
use uuid::Uuid;

use crate::config::WriterConfig;
use crate::idempotency::Claim;
use crate::insert::{self, Inserted, NewOrder};
use crate::metrics;

/// Times that a batch is sent. Above the connections of a pool, all of which may turn out to be stale.
const ATTEMPTS: u32 = 20;
/// Pause before the second attempt; grows by itself with each.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// What became of a request for an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// The order is durable, under this id.
    Order(Uuid),
    /// The idempotency key belongs to another request; there is no new order.
    KeyReused,
    /// The queue is full; there is no new order.
    QueueFull,
    /// The database does not answer. Nobody knows whether there is an order.
    Unavailable,
    /// The database refuses this order; there is none.
    Failed,
}

impl Placed {
    /// What became of a request for `order`.
    pub fn of(order: &NewOrder, inserted: Inserted) -> Self {
        match inserted {
            Inserted::New => Placed::Order(order.id),
            Inserted::Known(id) => Placed::Order(id),
            Inserted::KeyReused => Placed::KeyReused,
            Inserted::Unknown => Placed::Unavailable,
        }
    }
}

/// Puts orders into the queue. Cheap to clone.
#[derive(Clone)]
pub struct Writer {
    queue: mpsc::Sender<Entry>,
    timeout: Duration,
}

/// The other end of the queue, shared by the workers.
#[derive(Clone)]
pub struct Intake {
    queue: Arc<Mutex<mpsc::Receiver<Entry>>>,
    max_batch: usize,
    timeout: Duration,
}

struct Entry {
    order: NewOrder,
    claim: Option<Claim>,
    arrived: Instant,
    answer: oneshot::Sender<Placed>,
}

impl AsRef<NewOrder> for Entry {
    fn as_ref(&self) -> &NewOrder {
        &self.order
    }
}

impl Entry {
    /// Gives the key back first: whoever gets the answer may ask again at once.
    fn answer(self, placed: Placed) {
        drop(self.claim);
        // The client may have gone; its order is as durable as any.
        let _ = self.answer.send(placed);
    }
}

/// A queue of orders.
pub fn queue(config: &WriterConfig) -> (Writer, Intake) {
    let (sender, receiver) = mpsc::channel(config.queue_capacity);
    let intake =
        Intake { queue: Arc::new(Mutex::new(receiver)), max_batch: config.max_batch, timeout: config.timeout() };
    (Writer { queue: sender, timeout: config.timeout() }, intake)
}

impl Writer {
    /// Queues the order and waits until it is durable, or known not to be, or the time is up. Once queued it is
    /// inserted even if nobody waits any more. The claim on its key is held until then.
    pub async fn place(&self, order: NewOrder, claim: Option<Claim>) -> Placed {
        let (answer, placed) = oneshot::channel();
        match self.queue.try_send(Entry { order, claim, arrived: Instant::now(), answer }) {
            Ok(()) => metrics::QUEUED.inc(),
            Err(TrySendError::Full(_)) => return Placed::QueueFull,
            Err(TrySendError::Closed(_)) => return Placed::Unavailable,
        }
        match timeout(self.timeout, placed).await {
            Ok(Ok(placed)) => placed,
            Ok(Err(_)) | Err(_) => Placed::Unavailable,
        }
    }
}

impl Intake {
    /// One worker: inserts until the queue is closed and empty.
    pub async fn work(self, pool: PgPool) {
        let mut entries = Vec::with_capacity(self.max_batch);
        while self.queue.lock().await.recv_many(&mut entries, self.max_batch).await > 0 {
            metrics::QUEUED.sub(i64::try_from(entries.len()).unwrap_or(i64::MAX));
            let (late, mut batch): (Vec<_>, Vec<_>) =
                entries.drain(..).partition(|entry| entry.arrived.elapsed() >= self.timeout);
            late.into_iter().for_each(|entry| entry.answer(Placed::Unavailable));
            insert::sort(&mut batch);
            self.insert(&pool, batch).await;
        }
    }

    /// Inserts a sorted batch. A row that the database refuses is found by halving, so it fails alone.
    async fn insert(&self, pool: &PgPool, batch: Vec<Entry>) {
        let mut batches = vec![batch];
        while let Some(mut batch) = batches.pop() {
            if batch.is_empty() {
                continue;
            }
            let error = match self.attempt(pool, &batch).await {
                Ok(inserted) => {
                    answer(batch, &inserted);
                    continue;
                }
                Err(error) => error,
            };
            let cause = &error as &dyn std::error::Error;
            if messaging::is_unavailable(&error) {
                tracing::warn!(error = cause, orders = batch.len(), "the database does not take orders");
                batch.into_iter().for_each(|entry| entry.answer(Placed::Unavailable));
            } else if batch.len() > 1 {
                let second_half = batch.split_off(batch.len() / 2);
                batches.extend([second_half, batch]);
            } else {
                tracing::error!(error = cause, order.id = %batch[0].order.id, "the database refuses an order");
                batch.into_iter().for_each(|entry| entry.answer(Placed::Failed));
            }
        }
    }

    /// Inserts the batch, again when the connection was stale or the server rolled it back. Ids are fixed, so an
    /// attempt that did commit is found by the next.
    async fn attempt(&self, pool: &PgPool, batch: &[Entry]) -> Result<Vec<Inserted>, sqlx::Error> {
        let _timer = metrics::INSERT_SECONDS.start_timer();
        let deadline = Instant::now() + self.timeout;
        for attempt in 1.. {
            match timeout_at(deadline.into(), insert::insert(pool, batch)).await {
                Ok(Err(error)) if attempt < ATTEMPTS && may_work_now(&error) => sleep(RETRY_PAUSE * attempt).await,
                Ok(result) => return result,
                // A server that is frozen answers nothing, not even an error.
                Err(_) => break,
            }
        }
        Err(sqlx::Error::PoolTimedOut)
    }
}

/// The connection was broken (a pool keeps those of a server that was restarted until they are used), or the server
/// ended the statement for the sake of another.
fn may_work_now(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(error) => {
            error.code().is_some_and(|state| ["08", "40", "57P"].iter().any(|class| state.starts_with(class)))
        }
        _ => false,
    }
}

fn answer(batch: Vec<Entry>, inserted: &[Inserted]) {
    metrics::BATCH_ORDERS.observe(batch.len() as f64);
    for (entry, inserted) in batch.into_iter().zip(inserted) {
        if *inserted == Inserted::New {
            metrics::ACCEPTED.inc();
        }
        let placed = Placed::of(&entry.order, *inserted);
        entry.answer(placed);
    }
}
