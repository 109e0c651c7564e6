//! The HTTP API: what customers were told.

pub mod notifications;

use service_kit::{OpenApiRouter, routes};
use sqlx::PgPool;

/// Every route of this service.
pub fn router(pool: PgPool) -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(notifications::list_notifications)).with_state(pool)
}
