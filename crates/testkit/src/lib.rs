//! Tests on real servers.
//!
//! [`Env`] gives a test its own databases, topics and consumer groups on servers that all tests share;
//! [`Cluster`] runs the services in it as the programs that are shipped.
//!
//! ```no_run
//! # async fn example() {
//! let env = testkit::Env::new("everything").await;
//! let cluster = env.cluster().start().await;
//! let order = cluster.place(&testkit::order()).await;
//! assert_eq!(cluster.ended(order, std::time::Duration::from_secs(30)).await["status"], "COMPLETED");
//! # }
//! ```

mod child;
mod cleanup;
mod cluster;
mod connector;
mod databases;
mod env;
mod fault_proxy;
mod linked;
mod openapi;
mod order;
mod otlp;
pub mod participant;
mod process;
mod seed;
mod servers;
mod spawn;
mod statements;
mod wait;
pub mod workspace;

pub use child::Child;
pub use cluster::{Cluster, ClusterBuilder};
pub use env::{Env, SERVICES};
pub use fault_proxy::FaultProxy;
pub use linked::LinkedServers;
pub use openapi::assert_openapi_is_committed;
pub use order::{order, order_with};
pub use otlp::{OtlpReceiver, Span};
pub use process::Process;
pub use seed::rng;
pub use servers::Servers;
pub use statements::{assert_plans_by_key, assert_statements_prepare};
pub use wait::{wait_for, wait_until};
