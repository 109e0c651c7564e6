//! A shipment as the database holds it, and the answers that follow from it.

use chrono::{DateTime, Utc};
use messaging::participant::Reply;
use orders::messages::{ShippingCancelled, ShippingFailed, ShippingScheduled};
use orders::topics;
use serde::Serialize;
use sqlx::PgExecutor;
use utoipa::ToSchema;
use uuid::Uuid;

/// Reason of the answer to a booking whose undo came first.
const REFUSED: &str = "shipment refused: it was cancelled before it was booked";

/// Where a shipment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema, sqlx::Type)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[sqlx(type_name = "text", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum State {
    /// Booked.
    Scheduled,
    /// The address is not served; nothing was booked.
    Failed,
    /// Booked, then cancelled.
    Cancelled,
    /// Undone before it was booked: it never will be.
    Refused,
}

impl State {
    /// The name in the database, on the wire and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Scheduled => "SCHEDULED",
            State::Failed => "FAILED",
            State::Cancelled => "CANCELLED",
            State::Refused => "REFUSED",
        }
    }
}

/// A row of `shipments`, without the parcel's destination and content.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Shipment {
    /// The order it delivers.
    pub order_id: Uuid,
    /// Where it is.
    pub state: State,
    /// Its own id; absent when nothing was booked.
    pub shipment_id: Option<Uuid>,
    /// Who carries it; absent when nothing was booked.
    pub carrier: Option<String>,
    /// The carrier's code; absent when nothing was booked.
    pub tracking_code: Option<String>,
    /// Why nothing was booked.
    pub reason: Option<String>,
    /// When the command's answer was decided.
    pub answered_at: DateTime<Utc>,
    /// When the undo was applied.
    pub undone_at: Option<DateTime<Utc>>,
}

impl Shipment {
    /// The answer to the command: the same after the undo as before it.
    ///
    /// # Panics
    /// Never: the CHECKs of the table see to it that a booked row has all its columns.
    pub fn schedule_reply(&self) -> Reply {
        let failed = |reason: &str| {
            let value = ShippingFailed { order_id: self.order_id, reason: reason.to_owned() };
            Reply::new(topics::SHIPPING_FAILED.channel(), self.answered_at, &value)
        };
        match self.state {
            State::Failed => failed(self.reason.as_deref().unwrap_or_default()),
            State::Refused => failed(REFUSED),
            State::Scheduled | State::Cancelled => {
                let value = ShippingScheduled {
                    order_id: self.order_id,
                    shipment_id: self.shipment_id.expect("CHECK shipments_booking"),
                    carrier: self.carrier.clone(),
                    tracking_code: self.tracking_code.clone().expect("CHECK shipments_booking"),
                };
                Reply::new(topics::SHIPPING_SCHEDULED.channel(), self.answered_at, &value)
            }
        }
    }

    /// The answer to the undo. `None` while there was none.
    pub fn cancel_reply(&self) -> Option<Reply> {
        let value = ShippingCancelled { order_id: self.order_id };
        self.undone_at.map(|time| Reply::new(topics::SHIPPING_CANCELLED.channel(), time, &value))
    }
}

/// Reads shipments as they are now; run after the statement that found them there, for its snapshot may be older.
pub const STORED: &str = "
    SELECT order_id, state, shipment_id, carrier, tracking_code, reason, answered_at, undone_at
    FROM shipments WHERE order_id = ANY($1)";

/// The shipments of `orders`, in no order; fewer when some are unknown.
pub async fn stored(executor: impl PgExecutor<'_>, orders: &[Uuid]) -> Result<Vec<Shipment>, sqlx::Error> {
    sqlx::query_as(STORED).bind(orders).fetch_all(executor).await
}
