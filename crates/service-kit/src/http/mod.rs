//! The HTTP side: extractors that answer with problems, the layers, the accept loop, and the routes that
//! every service has.

mod actor;
mod extract;
mod json;
mod layers;
mod operations;
mod parameters;
mod server;

pub use actor::actor;
pub use extract::{ApiJson, ApiPath, ApiQuery, RawJson};
pub use json::{document, parse, typed};
pub use parameters::NoQuery;

pub(crate) use layers::router;
pub(crate) use operations::routes as ops;
pub(crate) use server::Server;
