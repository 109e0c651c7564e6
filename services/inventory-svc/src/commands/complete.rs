//! An order completed: what was set aside for it is shipped, once.

use std::collections::BTreeSet;

use messaging::HandlerError;
use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use crate::metrics;
use crate::reservation::{Line, Reservation, State};
use crate::stock::Moves;

/// Moves on every reservation that still holds its pieces.
pub const COMPLETE: &str = "
    UPDATE reservations AS r SET state = 'SHIPPED', shipped_at = now()
    FROM UNNEST($1::uuid[]) AS ended (order_id)
    WHERE r.order_id = ended.order_id AND r.state = 'RESERVED'
    RETURNING r.order_id, r.items";

/// Ships what is set aside for `orders`; returns the orders for which that changed nothing.
pub async fn complete(
    connection: &mut PgConnection,
    orders: &BTreeSet<Uuid>,
    moves: &mut Moves,
) -> Result<BTreeSet<Uuid>, HandlerError> {
    let mut unchanged = orders.clone();
    if orders.is_empty() {
        return Ok(unchanged);
    }
    let orders: Vec<Uuid> = orders.iter().copied().collect();
    let shipped: Vec<(Uuid, Json<Vec<Line>>)> = sqlx::query_as(COMPLETE).bind(orders).fetch_all(connection).await?;
    for (order_id, items) in &shipped {
        moves.ship(items);
        unchanged.remove(order_id);
    }
    Ok(unchanged)
}

/// Looks at an order whose completion changed nothing: a repetition, or a contradiction that somebody must look at.
pub fn count_unchanged(order_id: Uuid, reservation: Option<&Reservation>) {
    match reservation.map(|reservation| reservation.state) {
        Some(State::Shipped) => metrics::duplicates("complete", 1),
        state => {
            let state = state.map_or("NONE", State::as_str);
            tracing::error!(
                order.id = %order_id, reservation.state = state,
                "an order completed without stock set aside for it; nothing was shipped"
            );
            metrics::anomaly("complete", state);
        }
    }
}
