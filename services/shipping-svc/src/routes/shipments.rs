//! `GET /api/shipments/{orderId}`

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use service_kit::{ApiPath, Problem};
use sqlx::PgPool;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::shipment::{Shipment, State as ShipmentState, stored};

/// An order's shipment.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShipmentView {
    /// The order.
    pub order_id: Uuid,
    /// Where the shipment is.
    pub state: ShipmentState,
    /// Its own id; absent when nothing was booked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shipment_id: Option<Uuid>,
    /// Who carries it; absent when nothing was booked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub carrier: Option<String>,
    /// The carrier's code; absent when nothing was booked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracking_code: Option<String>,
    /// Why nothing was booked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl From<Shipment> for ShipmentView {
    fn from(shipment: Shipment) -> Self {
        ShipmentView {
            order_id: shipment.order_id,
            state: shipment.state,
            shipment_id: shipment.shipment_id,
            carrier: shipment.carrier,
            tracking_code: shipment.tracking_code,
            reason: shipment.reason,
        }
    }
}

/// The shipment of an order.
#[utoipa::path(
    get, path = "/api/shipments/{orderId}", tag = "shipments",
    params(("orderId" = Uuid, Path, description = "The order")),
    responses(
        (status = 200, body = ShipmentView),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "No order id"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "Nothing was asked"),
        (status = 503, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn get_shipment(
    State(pool): State<PgPool>,
    ApiPath(order_id): ApiPath<Uuid>,
) -> Result<Json<ShipmentView>, Problem> {
    match stored(&pool, &[order_id]).await?.pop() {
        Some(shipment) => Ok(Json(shipment.into())),
        None => Err(Problem::not_found(format!("no shipment was asked for order {order_id}"))),
    }
}
