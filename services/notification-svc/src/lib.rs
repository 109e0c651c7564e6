//! Tells customers how their orders ended. No step of the saga: an order never waits for it and never fails by it.

mod metrics;
pub mod notify;
mod routes;

use std::sync::Arc;

use messaging::Consumer;
use orders::topics::{ORDER_CANCELLED, ORDER_COMPLETED};
use serde::{Deserialize, Serialize};
use service_kit::{App, BoxError, Common, Service, ServiceConfig};

/// This service, with its documented defaults.
pub const SERVICE: Service = Service { name: "notification-svc", defaults: include_str!("../config.default.toml") };

/// The consumer group of the ends of orders.
pub const GROUP: &str = "notification-svc";

/// Every SQL statement of this service, by name.
pub const STATEMENTS: &[(&str, &str)] = &[("notify", notify::NOTIFY), ("list", routes::notifications::LIST)];

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
        Consumer::new(GROUP, Arc::new(notify::Notifier::new(pool.clone())))
            .topic(ORDER_COMPLETED.name, ORDER_COMPLETED.event_type)
            .topic(ORDER_CANCELLED.name, ORDER_CANCELLED.event_type)
            .layers(layers),
    );
    app.routes(routes::router(pool));
    Ok(app)
}
