//! What every service is made of: configuration, telemetry, HTTP, database, health, shutdown.
//!
//! A service's `main` is one line, [`run`]; its `build` function wires routes, consumers and tasks into an
//! [`App`], without touching the network, and the kit does the rest in the same order everywhere:
//! configuration, telemetry, build, bind, serve, drain.

mod app;
pub mod chaos;
pub mod config;
pub mod db;
pub mod health;
pub mod http;
mod lifecycle;
pub mod metrics;
pub mod paging;
pub mod problem;
mod run;
mod serve;
mod shutdown;
mod tasks;
pub mod telemetry;

pub use app::{App, AppError};
pub use config::{Common, ServiceConfig};
pub use http::{ApiJson, ApiPath, ApiQuery, NoQuery, RawJson};
pub use lifecycle::Outcome;
pub use paging::Page;
pub use problem::{FieldError, Problem};
pub use run::run;
pub use serve::{Running, StartError, start};

// So that a service needs neither crate in its own manifest.
pub use messaging::{BoxError, CancellationToken, Layers};
pub use utoipa_axum::router::OpenApiRouter;
pub use utoipa_axum::routes;

/// A service, as its `main` names it.
#[derive(Debug, Clone, Copy)]
pub struct Service {
    /// `order-api`: the name in logs, traces, metrics and CloudEvents sources.
    pub name: &'static str,
    /// The documented defaults of its configuration, laid over [`config::COMMON_DEFAULTS`].
    pub defaults: &'static str,
}

/// The version of every service: they are released together.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
