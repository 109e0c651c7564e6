//! The inventory participant: sets stock aside for an order, all lines or none, gives it back once, and sends it on its
//! way when the order completed.
//!
//! Correctness comes from the database alone (primary keys, CHECKs, stock locked by SKU in order), so any number of
//! replicas, or a replica that does not know that it lost its partitions, can do the same work at the same time.

pub mod commands;
mod metrics;
pub mod reservation;
mod routes;
pub mod stock;

use std::sync::Arc;

use messaging::Consumer;
use orders::topics::{INVENTORY_RELEASE_REQUESTED, INVENTORY_REQUESTED, ORDER_COMPLETED};
use serde::{Deserialize, Serialize};
use service_kit::{App, BoxError, Common, Service, ServiceConfig, db};

use commands::{InventoryCommands, complete, reserve};

/// This service, with its documented defaults.
pub const SERVICE: Service = Service { name: "inventory-svc", defaults: include_str!("../config.default.toml") };

/// The consumer group of its commands.
pub const GROUP: &str = "inventory-svc";

/// Every SQL statement of this service, by name.
pub const STATEMENTS: &[(&str, &str)] = &[
    ("stock lock", stock::LOCK),
    ("stock apply", stock::APPLY),
    ("reserve", reserve::RESERVE),
    ("release", reserve::RELEASE),
    ("complete", complete::COMPLETE),
    ("stored", reservation::STORED),
    ("stock list", routes::stock::LIST),
    ("stock get", routes::stock::GET),
    ("adjust create", routes::adjust::CREATE),
    ("adjust", routes::adjust::ADJUST),
];

/// The service's configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    /// What every service has.
    #[serde(flatten)]
    pub common: Common,
}

impl ServiceConfig for Config {
    fn common(&self) -> &Common {
        &self.common
    }

    fn validate(&self, _: &mut Vec<String>) {}
}

/// The service, wired. Opens no connection.
///
/// # Errors
/// When a client cannot be made from the configuration.
pub async fn build(_: Config, mut app: App) -> Result<App, BoxError> {
    let pool = app.database()?;
    db::join_by_key(&pool);
    let layers = app.layers();
    app.consumer(
        Consumer::new(GROUP, Arc::new(InventoryCommands::new(pool.clone())))
            .topic(INVENTORY_REQUESTED.name, INVENTORY_REQUESTED.event_type)
            .topic(INVENTORY_RELEASE_REQUESTED.name, INVENTORY_RELEASE_REQUESTED.event_type)
            .topic(ORDER_COMPLETED.name, ORDER_COMPLETED.event_type)
            .layers(layers),
    );
    app.routes(routes::router(pool));
    Ok(app)
}
