//! A TCP proxy that does harm on request: it delays, slows, cuts, swallows and resets what passes through.
//!
//! Its HTTP interface is that of Toxiproxy 2, so Toxiproxy's clients work with it. What happens to the bytes of one
//! direction is decided by a chain of toxics (`chain.rs`), which knows neither sockets nor timers; `link.rs` moves the
//! bytes.

mod api;
mod chain;
mod draw;
mod error;
mod link;
mod listen;
mod metrics;
mod model;
mod proxy;
mod registry;
mod toxics;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use service_kit::{App, BoxError, Common, Service, ServiceConfig};

use registry::Registry;

/// This service, with its documented defaults.
pub const SERVICE: Service = Service { name: "fault-proxy", defaults: include_str!("../config.default.toml") };

/// The service's configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    /// What every service has.
    #[serde(flatten)]
    pub common: Common,
    /// `[proxies]`
    pub proxies: ProxiesSection,
}

/// `[proxies]`: what holds for all proxies.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxiesSection {
    /// File with proxies to create at the start; empty for none.
    pub file: String,
    /// Where all draws come from; 0 draws it.
    pub seed: u64,
    /// Whether proxies may listen on other addresses than loopback.
    pub allow_remote: bool,
    /// Open connections of all proxies together.
    pub max_connections: usize,
    /// Open connections of one proxy.
    pub max_connections_per_proxy: usize,
    /// How long an upstream may take to accept a connection. Milliseconds.
    pub connect_timeout_ms: u32,
    /// What a latency holds back for each direction of a connection. Bytes.
    pub latency_buffer_bytes: usize,
}

impl ServiceConfig for Config {
    fn common(&self) -> &Common {
        &self.common
    }

    fn validate(&self, errors: &mut Vec<String>) {
        let proxies = &self.proxies;
        for (key, is_zero) in [
            ("max_connections", proxies.max_connections == 0),
            ("max_connections_per_proxy", proxies.max_connections_per_proxy == 0),
            ("connect_timeout_ms", proxies.connect_timeout_ms == 0),
            ("latency_buffer_bytes", proxies.latency_buffer_bytes == 0),
        ] {
            if is_zero {
                errors.push(format!("proxies.{key} is 0: it must be at least 1"));
            }
        }
    }
}

/// The service, wired. Opens no connection.
///
/// # Errors
/// None so far.
pub async fn build(config: Config, mut app: App) -> Result<App, BoxError> {
    let registry = Arc::new(Registry::new(&config.proxies));
    if !config.proxies.file.is_empty() {
        let (registry, file) = (registry.clone(), config.proxies.file);
        app.on_start(async move { registry.populate_from(&file).await });
    }
    app.routes(api::router(registry.clone()));
    let shutdown = app.shutdown();
    app.task("proxies", async move {
        shutdown.cancelled().await;
        registry.stop_all().await;
        Ok(())
    });
    Ok(app)
}
