//! The vocabulary of the order application: topics, the messages on them, and the values in the messages.
//!
//! Pure: no runtime, no database, no broker. What the platform says on Kafka is defined here once; the committed
//! files under `docs/contracts/` are generated from these types by [`contracts`].

pub mod contracts;
pub mod ids;
pub mod messages;
pub mod readers;
pub mod status;
pub mod topics;
pub mod values;

pub use status::OrderStatus;
pub use topics::Topic;
pub use values::{CountryCode, Currency, InvalidValue, Sku};
