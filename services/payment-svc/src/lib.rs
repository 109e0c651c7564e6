//! The payment participant: charges an order once, gives it back once, and keeps the money in a double-entry ledger.
//!
//! Correctness comes from the database alone (primary keys, CHECKs, row locks), so any number of replicas, or a replica
//! that does not know that it lost its partitions, can do the same work at the same time.

pub mod commands;
mod metrics;
pub mod payment;
mod routes;

use std::sync::Arc;
use std::time::Duration;

use messaging::Consumer;
use orders::topics::{PAYMENT_REFUND_REQUESTED, PAYMENT_REQUESTED};
use serde::{Deserialize, Serialize};
use service_kit::{App, BoxError, Common, Service, ServiceConfig};

use commands::{PaymentCommands, charge, slow};

/// This service, with its documented defaults.
pub const SERVICE: Service = Service { name: "payment-svc", defaults: include_str!("../config.default.toml") };

/// The consumer group of its commands.
pub const GROUP: &str = "payment-svc";

/// Every SQL statement of this service, by name.
pub const STATEMENTS: &[(&str, &str)] = &[
    ("charge", charge::CHARGE),
    ("refund", charge::REFUND),
    ("stored", payment::STORED),
    ("slow defer", slow::DEFER),
    ("slow fire", slow::FIRE),
    ("slow due", slow::DUE),
    ("slow settle", slow::SETTLE),
    ("ledger balances", routes::ledger::BALANCES),
];

/// The service's configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    /// What every service has.
    #[serde(flatten)]
    pub common: Common,
    /// `[payment]`
    pub payment: PaymentSection,
}

/// `[payment]`: the payment provider.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PaymentSection {
    /// After how long a slow charge is answered, from its first command. Seconds.
    pub slow_answer_seconds: u32,
    /// How often slow answers that fell due are looked for. Milliseconds.
    pub slow_poll_ms: u32,
}

impl ServiceConfig for Config {
    fn common(&self) -> &Common {
        &self.common
    }

    fn validate(&self, errors: &mut Vec<String>) {
        if self.payment.slow_poll_ms == 0 {
            errors.push("payment.slow_poll_ms is 0: it must be at least 1".to_owned());
        }
    }
}

/// The service, wired. Opens no connection.
///
/// # Errors
/// When a client cannot be made from the configuration.
pub async fn build(config: Config, mut app: App) -> Result<App, BoxError> {
    let pool = app.database()?;
    let producer = app.producer()?;
    let slow_after = Duration::from_secs(config.payment.slow_answer_seconds.into());
    let poll = Duration::from_millis(config.payment.slow_poll_ms.into());

    let layers = app.layers();
    app.consumer(
        Consumer::new(GROUP, Arc::new(PaymentCommands::new(pool.clone(), slow_after)))
            .topic(PAYMENT_REQUESTED.name, PAYMENT_REQUESTED.event_type)
            .topic(PAYMENT_REFUND_REQUESTED.name, PAYMENT_REFUND_REQUESTED.event_type)
            .layers(layers),
    );
    let answers = slow::answer_due(pool.clone(), producer, poll, app.shutdown());
    app.task("slow answers", async {
        answers.await;
        Ok(())
    });
    app.routes(routes::router(pool));
    Ok(app)
}
