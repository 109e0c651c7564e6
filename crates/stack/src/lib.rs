//! The local profile: PostgreSQL, Kafka and Kafka Connect with Debezium as plain processes, the services
//! beside them, and a supervisor that keeps all of them running. Neither Docker nor root is needed.
//!
//! - [`fetch`] brings the servers' files into a cache, once.
//! - [`servers`] starts and stops the three servers; tests use it without the supervisor.
//! - [`provision`] makes databases, topics, publication, slot and connector, under any names.
//! - [`repair`] says what is wrong between the outbox and its readers, and mends it.
//! - [`backup`] takes backups of the databases and puts them back.
//! - [`supervisor`] runs everything for `symphony up` and answers the other commands.
//!
//! Every child dies with the process that started it, see [`spawn`].

pub mod backup;
pub mod error;
pub mod fetch;
pub mod launch;
pub mod layout;
pub mod links;
pub mod log;
pub mod ports;
pub mod process;
pub mod provision;
pub mod repair;
pub mod servers;
pub mod spawn;
pub mod supervisor;
pub mod user;
pub mod wipe;

pub use error::Error;
pub use layout::{DataDir, Repository};
