//! The HTTP API: looking only. Shipments are changed by commands over Kafka.

mod shipments;

use service_kit::{OpenApiRouter, routes};
use sqlx::PgPool;

/// Every route of this service.
pub fn router(pool: PgPool) -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(shipments::get_shipment)).with_state(pool)
}
