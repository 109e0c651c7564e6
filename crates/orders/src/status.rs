//! Where an order is.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::values::InvalidValue;

/// Status of an order as its customer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OrderStatus {
    /// Accepted; its saga is running or will start.
    Pending,
    /// Paid, reserved and shipped. Terminal.
    Completed,
    /// Undone; nothing is charged, reserved or shipped. Terminal.
    Cancelled,
    /// Stopped until an operator acts: at rest, not terminal.
    Parked,
}

impl OrderStatus {
    /// Every status.
    pub const ALL: [OrderStatus; 4] =
        [OrderStatus::Pending, OrderStatus::Completed, OrderStatus::Cancelled, OrderStatus::Parked];

    /// The name on the wire and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            OrderStatus::Pending => "PENDING",
            OrderStatus::Completed => "COMPLETED",
            OrderStatus::Cancelled => "CANCELLED",
            OrderStatus::Parked => "PARKED",
        }
    }

    /// True when no later event can change it.
    pub fn is_terminal(self) -> bool {
        matches!(self, OrderStatus::Completed | OrderStatus::Cancelled)
    }
}

impl fmt::Display for OrderStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for OrderStatus {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        OrderStatus::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or(InvalidValue::new("one of PENDING, COMPLETED, CANCELLED, PARKED"))
    }
}
