//! `GET /api/payments/{orderId}`

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use service_kit::{ApiPath, Problem};
use sqlx::PgPool;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::payment::{Payment, State as PaymentState, stored};

/// An order's payment.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PaymentView {
    /// The order.
    pub order_id: Uuid,
    /// Where the payment is.
    pub state: PaymentState,
    /// What was charged, in minor units; stays after a refund.
    pub charged: i64,
    /// What was given back, in minor units.
    pub refunded: i64,
    /// Currency of the amounts; absent when the payment was undone before it was asked for.
    pub currency: Option<String>,
    /// Why it was declined.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl From<Payment> for PaymentView {
    fn from(payment: Payment) -> Self {
        let amount = payment.amount.unwrap_or_default();
        let (charged, refunded) = match payment.state {
            PaymentState::Charged => (amount, 0),
            PaymentState::Refunded => (amount, amount),
            PaymentState::Pending | PaymentState::Declined | PaymentState::Refused => (0, 0),
        };
        PaymentView {
            order_id: payment.order_id,
            state: payment.state,
            charged,
            refunded,
            currency: payment.currency,
            reason: payment.reason,
        }
    }
}

/// The payment of an order.
#[utoipa::path(
    get, path = "/api/payments/{orderId}", tag = "payments",
    params(("orderId" = Uuid, Path, description = "The order")),
    responses(
        (status = 200, body = PaymentView),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "No order id"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "Nothing was asked"),
        (status = 503, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn get_payment(
    State(pool): State<PgPool>,
    ApiPath(order_id): ApiPath<Uuid>,
) -> Result<Json<PaymentView>, Problem> {
    match stored(&pool, &[order_id]).await?.pop() {
        Some(payment) => Ok(Json(payment.into())),
        None => Err(Problem::not_found(format!("no payment was asked for order {order_id}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(state: PaymentState) -> (i64, i64) {
        let payment = Payment {
            order_id: Uuid::nil(),
            payment_id: Some(Uuid::nil()),
            state,
            amount: Some(500),
            currency: Some("EUR".to_owned()),
            reason: None,
            answered_at: None,
            undone_at: None,
        };
        let view = PaymentView::from(payment);
        (view.charged, view.refunded)
    }

    #[test]
    fn only_what_was_charged_counts() {
        assert_eq!(view(PaymentState::Charged), (500, 0));
        assert_eq!(view(PaymentState::Refunded), (500, 500));
        for state in [PaymentState::Pending, PaymentState::Declined, PaymentState::Refused] {
            assert_eq!(view(state), (0, 0), "{state:?}");
        }
    }
}
