//! The HTTP API: stock, and how an operator sets it.

pub mod adjust;
pub mod stock;

use service_kit::{OpenApiRouter, routes};
use sqlx::PgPool;

/// Every route of this service.
pub fn router(pool: PgPool) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(stock::list_stock))
        .routes(routes!(stock::get_stock, adjust::put_stock))
        .with_state(pool)
}
