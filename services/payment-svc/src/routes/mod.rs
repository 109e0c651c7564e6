//! The HTTP API: looking only. Payments are changed by commands over Kafka.

pub mod ledger;
pub mod payments;

use service_kit::{OpenApiRouter, routes};
use sqlx::PgPool;

/// Every route of this service.
pub fn router(pool: PgPool) -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(payments::get_payment)).routes(routes!(ledger::get_ledger)).with_state(pool)
}
