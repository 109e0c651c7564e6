//! The shipping participant: books one shipment an order, and cancels it once.
//!
//! Correctness comes from the database alone (primary key, CHECKs, row locks), so any number of replicas, or a replica
//! that does not know that it lost its partitions, can do the same work at the same time.

pub mod commands;
mod metrics;
mod routes;
pub mod shipment;

use std::sync::Arc;

use messaging::Consumer;
use orders::topics::{SHIPPING_CANCEL_REQUESTED, SHIPPING_REQUESTED};
use serde::{Deserialize, Serialize};
use service_kit::{App, BoxError, Common, Service, ServiceConfig};

use commands::{ShippingCommands, schedule};

/// This service, with its documented defaults.
pub const SERVICE: Service = Service { name: "shipping-svc", defaults: include_str!("../config.default.toml") };

/// The consumer group of its commands.
pub const GROUP: &str = "shipping-svc";

/// Every SQL statement of this service, by name.
pub const STATEMENTS: &[(&str, &str)] =
    &[("schedule", schedule::SCHEDULE), ("cancel", schedule::CANCEL), ("stored", shipment::STORED)];

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
    let layers = app.layers();
    app.consumer(
        Consumer::new(GROUP, Arc::new(ShippingCommands::new(pool.clone())))
            .topic(SHIPPING_REQUESTED.name, SHIPPING_REQUESTED.event_type)
            .topic(SHIPPING_CANCEL_REQUESTED.name, SHIPPING_CANCEL_REQUESTED.event_type)
            .layers(layers),
    );
    app.routes(routes::router(pool));
    Ok(app)
}
