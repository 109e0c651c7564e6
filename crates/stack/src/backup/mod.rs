//! Backups of the whole PostgreSQL cluster, all databases at one point, and putting one back.
//!
//! - [`take`] copies a running cluster into a folder, by PostgreSQL's own low-level protocol: no tool is needed, nobody waits.
//! - [`place`] puts such a folder where a stack's cluster is, beside what was there.
//! - [`renew_capture`] makes the slot anew that a backup does not hold.
//! - [`Interrupted`] says that a restore has begun and not ended; then nothing starts.
//!
//! What Kafka still holds from after the backup is none of this module's business: `symphony restore` brings it to the
//! same point.

mod capture;
mod copy;
mod files;
mod manifest;
mod place;
mod take;
mod unfinished;

pub use capture::renew_capture;
pub use manifest::{Entry, Manifest};
pub(crate) use place::REPLACED;
pub use place::{Interrupted, Placed, Source, place};
pub use take::take;
