//! The batch: one read, the fold, one write.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use messaging::{BatchHandler, Delivery, Envelope, HandlerError, Outgoing, Poison, Record, async_trait};
use saga::Definition;
use sqlx::PgPool;
use uuid::Uuid;

use crate::definitions::{Definitions, Pinned};
use crate::fold::{Fold, Folded};
use crate::gate::InFlight;
use crate::inbound::{self, Inbound};
use crate::load::{Snapshot, load};
use crate::metrics;
use crate::store::{Changes, WriteError};

/// How often a batch is decided again at once when another writer was faster, before it backs off.
pub(crate) const CONFLICT_RETRIES: usize = 5;

/// Folds batches of triggers and replies into their sagas.
pub(crate) struct SagaHandler {
    pool: PgPool,
    definitions: Arc<Definitions>,
    in_flight: Arc<InFlight>,
}

impl SagaHandler {
    pub(crate) fn new(pool: PgPool, definitions: Arc<Definitions>, in_flight: Arc<InFlight>) -> Self {
        SagaHandler { pool, definitions, in_flight }
    }

    /// Decides the batch on the sagas as they are now. The inner error says why nothing was written, such as that another
    /// writer was faster.
    async fn attempt(
        &self,
        batch: &BTreeMap<Uuid, Vec<&Delivery<Inbound>>>,
    ) -> Result<Result<Vec<Outgoing>, WriteError>, HandlerError> {
        // In the order of their ids, as every writer goes.
        let ids: Vec<Uuid> = batch.keys().copied().collect();
        let snapshot = load(&self.pool, &ids).await?;
        let pinned: BTreeSet<i32> = snapshot.sagas.values().map(|stored| stored.definition_id).collect();
        let definitions = self.definitions.get(pinned).await?;
        let starts = |topic: &str| self.definitions.started_by(topic);
        let (changes, folded) =
            decide(batch, snapshot, &definitions, starts).map_err(|poison| HandlerError::Poison(Box::new(poison)))?;
        if !changes.is_empty()
            && let Err(error) = changes.write(&self.pool).await
        {
            return Ok(Err(error));
        }
        metrics::BATCH_SAGAS.observe(batch.len() as f64);
        self.in_flight.add(folded.iter().map(|folded| folded.in_flight).sum());
        folded.iter().for_each(Folded::count);
        Ok(Ok(folded.into_iter().flat_map(|folded| folded.outgoing).collect()))
    }
}

/// What `batch` makes of the sagas in `snapshot`, which are all that there are of those it is for: what is to be
/// stored, and what each fold leaves to do after that. `definitions` has every one that they are pinned to, and
/// `starts` gives the one that a topic starts.
///
/// # Errors
/// When a message is one that no participant which follows the protocol could have sent.
pub fn decide(
    batch: &BTreeMap<Uuid, Vec<&Delivery<Inbound>>>,
    mut snapshot: Snapshot,
    definitions: &HashMap<i32, Arc<Definition>>,
    starts: impl Fn(&str) -> Option<Pinned>,
) -> Result<(Changes, Vec<Folded>), Poison> {
    let mut changes = Changes::default();
    let mut folded = Vec::with_capacity(batch.len());
    for (id, deliveries) in batch {
        let stored = snapshot.sagas.remove(id);
        let mut fold = Fold::of(stored.map(|stored| {
            let definition = definitions[&stored.definition_id].clone();
            (stored, definition)
        }));
        for delivery in deliveries {
            fold.take(delivery, starts(&delivery.topic), snapshot.now)?;
        }
        folded.extend(fold.finish(&mut changes));
    }
    Ok((changes, folded))
}

#[async_trait]
impl BatchHandler for SagaHandler {
    type Message = Inbound;

    fn decode(&self, record: &Record, envelope: &Envelope) -> Result<Inbound, Poison> {
        inbound::decode(record, envelope, self.definitions.started_by(&record.topic).is_some())
    }

    async fn handle(&self, batch: &[Delivery<Inbound>]) -> Result<Vec<Outgoing>, HandlerError> {
        let mut by_saga: BTreeMap<Uuid, Vec<&Delivery<Inbound>>> = BTreeMap::new();
        for delivery in batch {
            by_saga.entry(delivery.message.saga).or_default().push(delivery);
        }
        let mut tries = 0;
        loop {
            match self.attempt(&by_saga).await? {
                Ok(outgoing) => return Ok(outgoing),
                Err(WriteError::Conflict(_)) if tries < CONFLICT_RETRIES => {
                    metrics::CONFLICTS.inc();
                    tries += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}
