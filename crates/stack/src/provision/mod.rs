//! What a stack needs in its servers: roles and databases, topics, the slot and the connector.
//!
//! `symphony up` makes it under the plain names; tests make it many times beside each other under prefixes.
//! Everything may be done again: what is there stays.

pub mod connector;
pub mod databases;
pub mod owed;
pub mod publication;
pub mod refill;
pub mod slot;
pub mod topics;

pub use connector::OutboxConnector;

/// Under which names things are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// Put before the name of every database.
    pub database_prefix: String,
    /// Put before the name of every topic.
    pub topic_prefix: String,
    /// The outbox's replication slot, unique in the cluster.
    pub slot: String,
    /// The outbox's connector, unique in the Connect cluster.
    pub connector: String,
}

impl Default for Names {
    fn default() -> Self {
        Self::prefixed("")
    }
}

impl Names {
    /// `prefix` (lower-case letters, digits, `_`) put before everything.
    pub fn prefixed(prefix: &str) -> Self {
        Self {
            database_prefix: prefix.into(),
            topic_prefix: prefix.into(),
            slot: format!("{prefix}orders_outbox"),
            connector: format!("{prefix}orders-outbox"),
        }
    }

    /// The name of one of our databases, named without prefix.
    pub fn database(&self, name: &str) -> String {
        format!("{}{name}", self.database_prefix)
    }

    /// The database of the orders, which is the one that Debezium decodes.
    pub fn orders_database(&self) -> String {
        self.database("orders")
    }
}
