//! What outlives every process: Kafka, the databases, the clock; and the dice.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use saga::Definition;

use crate::database::Database;
use crate::log::{Broker, Network, Publishing};
use crate::order_api::Orders;
use crate::random::Random;
use crate::rules::{Sabotage, Seen};
use crate::work::Work;

pub(crate) struct Surroundings {
    pub(crate) definition: Arc<Definition>,
    pub(crate) random: Random,
    pub(crate) now: DateTime<Utc>,
    pub(crate) broker: Broker,
    pub(crate) network: Network,
    /// The orchestrator's.
    pub(crate) database: Database,
    /// order-api's.
    pub(crate) orders: Orders,
    /// Of each participant, by the name of its step.
    pub(crate) works: BTreeMap<String, Work>,
    pub(crate) sabotage: Sabotage,
    pub(crate) seen: Seen,
}

impl Surroundings {
    /// Some of a batch goes out. Tells whether all of it is acknowledged.
    pub(crate) fn publish(&mut self, publishing: &mut Publishing) -> bool {
        publishing.go_on(&mut self.broker, self.network, &mut self.random, self.now)
    }
}
