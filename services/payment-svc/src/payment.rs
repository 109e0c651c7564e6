//! A payment as the database holds it, and the answers that follow from it.

use chrono::{DateTime, Utc};
use messaging::participant::Reply;
use orders::messages::{PaymentFailed, PaymentRefunded, PaymentSuccessful};
use orders::{Currency, topics};
use serde::Serialize;
use sqlx::PgExecutor;
use utoipa::ToSchema;
use uuid::Uuid;

/// Reason of the answer to a charge whose undo came first.
const REFUSED: &str = "payment refused: it was cancelled before it was charged";

/// Where a payment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema, sqlx::Type)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[sqlx(type_name = "text", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum State {
    /// The provider has not answered yet.
    Pending,
    /// The amount was charged.
    Charged,
    /// The provider declined; nothing was charged.
    Declined,
    /// Charged, then given back.
    Refunded,
    /// Undone before it was charged: it never will be.
    Refused,
}

impl State {
    /// The name in the database, on the wire and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Pending => "PENDING",
            State::Charged => "CHARGED",
            State::Declined => "DECLINED",
            State::Refunded => "REFUNDED",
            State::Refused => "REFUSED",
        }
    }
}

/// A row of `payments`.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Payment {
    /// The order it pays for.
    pub order_id: Uuid,
    /// Its own id; absent when only the undo is known.
    pub payment_id: Option<Uuid>,
    /// Where it is.
    pub state: State,
    /// What was asked for, in minor units; absent when only the undo is known.
    pub amount: Option<i64>,
    /// Currency of the amount.
    pub currency: Option<String>,
    /// Why it was declined.
    pub reason: Option<String>,
    /// When the command's answer was decided.
    pub answered_at: Option<DateTime<Utc>>,
    /// When the undo was applied.
    pub undone_at: Option<DateTime<Utc>>,
}

impl Payment {
    /// The answer to the command: the same after the undo as before it. `None` while it is pending.
    ///
    /// # Panics
    /// Never: the CHECKs of the table see to it that a charged row has all its columns.
    pub fn charge_reply(&self) -> Option<Reply> {
        let failed = |reason: &str| {
            let value = PaymentFailed { order_id: self.order_id, reason: reason.to_owned() };
            self.answered_at.map(|time| Reply::new(topics::PAYMENT_FAILED.channel(), time, &value))
        };
        match self.state {
            State::Pending => None,
            State::Declined => failed(self.reason.as_deref().unwrap_or_default()),
            State::Refused => failed(REFUSED),
            State::Charged | State::Refunded => {
                let (amount, currency) = self.asked();
                let payment_id = self.payment_id.expect("CHECK payments_charge");
                let value = PaymentSuccessful { order_id: self.order_id, payment_id, amount, currency };
                self.answered_at.map(|time| Reply::new(topics::PAYMENT_SUCCESSFUL.channel(), time, &value))
            }
        }
    }

    /// The answer to the undo. `None` while there was none.
    pub fn refund_reply(&self) -> Option<Reply> {
        let (refunded, currency) = match self.state {
            State::Refunded => {
                let (amount, currency) = self.asked();
                (amount, Some(currency))
            }
            _ => (0, None),
        };
        let value = PaymentRefunded { order_id: self.order_id, refunded, currency };
        self.undone_at.map(|time| Reply::new(topics::PAYMENT_REFUNDED.channel(), time, &value))
    }

    /// Amount and currency of a row that was charged.
    fn asked(&self) -> (i64, Currency) {
        let currency = self.currency.clone().and_then(|code| Currency::try_from(code).ok());
        (self.amount.expect("CHECK payments_charge"), currency.expect("stored from a checked currency"))
    }
}

/// Reads payments as they are now; run after the statement that found them there, for its snapshot may be older.
pub const STORED: &str = "
    SELECT order_id, payment_id, state, amount, currency, reason, answered_at, undone_at
    FROM payments WHERE order_id = ANY($1)";

/// The payments of `orders`, in no order; fewer when some are unknown.
pub async fn stored(executor: impl PgExecutor<'_>, orders: &[Uuid]) -> Result<Vec<Payment>, sqlx::Error> {
    sqlx::query_as(STORED).bind(orders).fetch_all(executor).await
}
