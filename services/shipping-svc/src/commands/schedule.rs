//! Book one shipment for an order; the undo cancels it once, or sees to it that it is never booked.

use std::collections::{BTreeMap, BTreeSet};

use messaging::HandlerError;
use orders::messages::{InventoryLine, ShippingRequested};
use serde::Serialize;
use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use crate::metrics;
use crate::shipment::{Shipment, State};

/// Inserts the shipments that are new.
pub const SCHEDULE: &str = "
    INSERT INTO shipments
        (order_id, state, shipment_id, carrier, tracking_code, destination, items, reason, answered_at)
    SELECT order_id, state, shipment_id, CASE WHEN shipment_id IS NOT NULL THEN $8::text END, tracking_code,
           destination, items, reason, now()
    FROM UNNEST($1::uuid[], $2::text[], $3::uuid[], $4::text[], $5::jsonb[], $6::jsonb[], $7::text[])
        AS t (order_id, state, shipment_id, tracking_code, destination, items, reason)
    ORDER BY order_id
    ON CONFLICT (order_id) DO NOTHING
    RETURNING order_id, state, shipment_id, carrier, tracking_code, reason, answered_at, undone_at";

/// Undoes every shipment that was not undone yet, or leaves a tombstone.
pub const CANCEL: &str = "
    INSERT INTO shipments AS s (order_id, state, answered_at, undone_at)
    SELECT order_id, 'REFUSED', now(), now() FROM UNNEST($1::uuid[]) AS t (order_id) ORDER BY order_id
    ON CONFLICT (order_id) DO UPDATE SET
        state = CASE s.state WHEN 'SCHEDULED' THEN 'CANCELLED' ELSE s.state END,
        undone_at = now()
    WHERE s.undone_at IS NULL
    RETURNING old.state AS was, new.order_id, new.state, new.shipment_id, new.carrier, new.tracking_code, new.reason,
        new.answered_at, new.undone_at";

/// Who carries every parcel.
const CARRIER: &str = "Symphony Parcel";

/// Where the carrier does not go.
const NOT_SERVED: &[&str] = &["AQ"];

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Destination<'m> {
    name: &'m str,
    street: &'m str,
    city: &'m str,
    postal_code: &'m str,
    country: &'m str,
}

/// What the carrier prints on the parcel: the same for the same order, however often it is booked.
fn tracking_code(order_id: Uuid) -> String {
    let digest = Uuid::new_v5(&order_id, b"tracking code").as_u128();
    format!("SY{:012X}", digest >> 80)
}

/// Bookings, by order.
pub type Bookings<'b> = BTreeMap<Uuid, &'b ShippingRequested>;

/// Applies the bookings that are new and returns their shipments.
pub async fn schedule(connection: &mut PgConnection, bookings: &Bookings<'_>) -> Result<Vec<Shipment>, HandlerError> {
    if bookings.is_empty() {
        return Ok(Vec::new());
    }
    let (mut orders, mut states, mut shipments) = (vec![], vec![], vec![]);
    let (mut codes, mut destinations, mut items, mut reasons) = (vec![], vec![], vec![], vec![]);
    for (order_id, asked) in bookings {
        let country = asked.country.as_str();
        let served = !NOT_SERVED.contains(&country);
        orders.push(*order_id);
        states.push(if served { State::Scheduled } else { State::Failed }.as_str());
        shipments.push(served.then(|| Uuid::new_v5(order_id, b"shipment")));
        codes.push(served.then(|| tracking_code(*order_id)));
        destinations.push(Json(Destination {
            name: &asked.name,
            street: &asked.street,
            city: &asked.city,
            postal_code: &asked.postal_code,
            country,
        }));
        items.push(Json::<&[InventoryLine]>(&asked.items));
        reasons.push((!served).then(|| format!("country {country} is not served")));
    }
    let new = sqlx::query_as(SCHEDULE)
        .bind(orders)
        .bind(states)
        .bind(shipments)
        .bind(codes)
        .bind(destinations)
        .bind(items)
        .bind(reasons)
        .bind(CARRIER)
        .fetch_all(connection)
        .await?;
    Ok(new)
}

/// A shipment that an undo changed.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Undone {
    /// Its state before; `None` when there was no shipment, so that the row is a tombstone.
    was: Option<State>,
    /// The shipment as it is now.
    #[sqlx(flatten)]
    pub shipment: Shipment,
}

impl Undone {
    /// Counts what the undo did.
    pub fn count(&self) {
        metrics::applied("cancel", self.shipment.state.as_str());
        if self.was.is_none() {
            metrics::tombstone();
        }
    }
}

/// Applies the undos that are new and returns their shipments.
pub async fn cancel(connection: &mut PgConnection, orders: &BTreeSet<Uuid>) -> Result<Vec<Undone>, HandlerError> {
    let orders: Vec<Uuid> = orders.iter().copied().collect();
    Ok(sqlx::query_as(CANCEL).bind(orders).fetch_all(connection).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_always_gets_the_same_tracking_code() {
        let code = tracking_code(Uuid::from_u128(7));
        assert_eq!(code, tracking_code(Uuid::from_u128(7)));
        assert_ne!(code, tracking_code(Uuid::from_u128(8)));
        assert_eq!(code.len(), 14, "{code}");
    }
}
