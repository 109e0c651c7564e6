//! Typed configuration: documented defaults compiled in, the environment over them.
//!
//! Section `[http]`, key `port` is read from `HTTP_PORT`. Every error of every variable is found before
//! the first socket opens, and all are reported together.

mod load;
mod print;

use std::time::Duration;

use messaging::KafkaConfig;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use load::{ConfigErrors, Loaded, load};
pub use print::{mask, to_toml};

/// The documented defaults of the sections in [`Common`].
pub const COMMON_DEFAULTS: &str = include_str!("common.default.toml");

/// The whole configuration of a service: [`Common`], flattened, and a struct for each section of its own.
///
/// Every key has its default in the service's `config.default.toml` or in [`COMMON_DEFAULTS`]; a default
/// that no field reads is an error. TOML knows no null: "off" is an empty string or 0.
pub trait ServiceConfig: Serialize + DeserializeOwned + Send + 'static {
    /// The sections every service has.
    fn common(&self) -> &Common;

    /// Adds one sentence to `errors` for each value of the service's own sections that cannot work.
    fn validate(&self, errors: &mut Vec<String>);
}

/// The sections every service has. `#[serde(flatten)]` it into the service's configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Common {
    /// `[service]`
    pub service: ServiceSection,
    /// `[http]`
    pub http: HttpConfig,
    /// `[shutdown]`
    pub shutdown: ShutdownConfig,
    /// `[kafka]`
    pub kafka: KafkaConfig,
    /// `[database]`
    pub database: DatabaseConfig,
    /// `[log]`
    pub log: LogConfig,
    /// `[otlp]`
    pub otlp: OtlpConfig,
    /// `[chaos]`
    pub chaos: ChaosConfig,
}

/// `[service]`: who this process is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceSection {
    /// Name of this process among its replicas; empty means `<host>-<process id>`.
    pub instance: String,
}

/// `[chaos]`: faults on demand.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChaosConfig {
    /// Whether this process obeys the faults on the topic `chaos.faults`.
    pub enabled: bool,
}

/// `[http]`: the listener and its limits.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpConfig {
    /// Address to listen on.
    pub host: String,
    /// Port to listen on; 0 takes a free one.
    pub port: u16,
    /// File that gets the bound address; empty for none.
    pub port_file: String,
    /// Time for a request's head, and the life of an idle connection. Milliseconds.
    pub header_timeout_ms: u64,
    /// Time for a request. Milliseconds.
    pub request_timeout_ms: u64,
    /// Largest request body. Bytes.
    pub body_limit_bytes: usize,
    /// Connections served at once.
    pub max_connections: usize,
    /// Requests handled at once.
    pub max_in_flight: usize,
}

/// `[shutdown]`: how the service leaves.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShutdownConfig {
    /// Time between "not ready" and the closed port. Milliseconds.
    pub delay_ms: u64,
    /// Time for the whole shutdown. Milliseconds.
    pub deadline_ms: u64,
}

/// `[database]`: the pool and what the server may take for a statement.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseConfig {
    /// `postgres://role:password@host:port/database`; empty for none.
    pub url: String,
    /// Connections of the pool.
    pub max_connections: u32,
    /// Longest wait for a connection. Milliseconds.
    pub acquire_timeout_ms: u64,
    /// PostgreSQL's `statement_timeout`. Milliseconds.
    pub statement_timeout_ms: u64,
    /// PostgreSQL's `lock_timeout`. Milliseconds.
    pub lock_timeout_ms: u64,
    /// PostgreSQL's `idle_in_transaction_session_timeout`. Milliseconds.
    pub idle_in_transaction_timeout_ms: u64,
}

/// `[log]`: events on stdout.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// How an event is written.
    pub format: LogFormat,
    /// A level, or a filter in the syntax of `tracing_subscriber::EnvFilter`.
    pub level: String,
}

/// How an event is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line, for machines.
    Json,
    /// Text, for people.
    Pretty,
}

/// `[otlp]`: traces.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OtlpConfig {
    /// gRPC endpoint of the collector; empty switches traces off.
    pub endpoint: String,
    /// Share of new traces that is recorded.
    pub sample_ratio: f64,
}

impl Common {
    fn validate(&self, errors: &mut Vec<String>) {
        self.http.validate(errors);
        self.kafka.validate(errors);
        self.database.validate(errors);
        if self.shutdown.deadline_ms <= self.shutdown.delay_ms {
            errors.push(format!(
                "shutdown.deadline_ms is {}: it must be above shutdown.delay_ms, {}",
                self.shutdown.deadline_ms, self.shutdown.delay_ms
            ));
        }
        self.log.validate(errors);
        if !self.otlp.endpoint.is_empty() && !is_http_url(&self.otlp.endpoint) {
            errors.push(format!("otlp.endpoint is {:?}: it must be http://host:port", mask(&self.otlp.endpoint)));
        }
        if !(0.0..=1.0).contains(&self.otlp.sample_ratio) {
            errors.push(format!("otlp.sample_ratio is {}: it must be from 0.0 to 1.0", self.otlp.sample_ratio));
        }
    }
}

impl HttpConfig {
    /// Time for a request's head.
    pub fn header_timeout(&self) -> Duration {
        Duration::from_millis(self.header_timeout_ms)
    }

    /// Time for a request.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }

    fn validate(&self, errors: &mut Vec<String>) {
        if self.host.trim().is_empty() {
            errors.push("http.host is empty: 127.0.0.1 or 0.0.0.0 will do".to_owned());
        }
        let positive = [
            ("header_timeout_ms", self.header_timeout_ms),
            ("request_timeout_ms", self.request_timeout_ms),
            ("body_limit_bytes", self.body_limit_bytes as u64),
            ("max_connections", self.max_connections as u64),
            ("max_in_flight", self.max_in_flight as u64),
        ];
        for (key, _) in positive.into_iter().filter(|(_, value)| *value == 0) {
            errors.push(format!("http.{key} is 0: it must be at least 1"));
        }
    }
}

impl ShutdownConfig {
    /// Time between "not ready" and the closed port.
    pub fn delay(&self) -> Duration {
        Duration::from_millis(self.delay_ms)
    }

    /// Time for the whole shutdown.
    pub fn deadline(&self) -> Duration {
        Duration::from_millis(self.deadline_ms)
    }
}

impl LogConfig {
    fn validate(&self, errors: &mut Vec<String>) {
        // The filter's syntax takes any bare word for the name of a module, so a mistyped level would
        // switch the log off without a word.
        let levels = ["error", "warn", "info", "debug", "trace", "off"];
        let mistyped = self
            .level
            .split(',')
            .map(str::trim)
            .filter(|part| !part.contains(['=', '[']))
            .find(|part| !levels.contains(&part.to_ascii_lowercase().as_str()));
        if let Some(part) = mistyped {
            errors.push(format!("log.level is {:?}: {part:?} is none of {}", self.level, levels.join(", ")));
        } else if let Err(error) = self.level.parse::<tracing_subscriber::EnvFilter>() {
            errors.push(format!("log.level is {:?}: {error}", self.level));
        }
    }
}

impl DatabaseConfig {
    fn validate(&self, errors: &mut Vec<String>) {
        if let Err(error) = crate::db::parse_url(&self.url)
            && !self.url.is_empty()
        {
            errors.push(format!("database.url is {:?}: {error}", mask(&self.url)));
        }
        if self.max_connections == 0 {
            errors.push("database.max_connections is 0: it must be at least 1".to_owned());
        }
        if self.acquire_timeout_ms == 0 {
            errors.push("database.acquire_timeout_ms is 0: it must be at least 1".to_owned());
        }
    }
}

fn is_http_url(text: &str) -> bool {
    text.parse::<axum::http::Uri>()
        .is_ok_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some())
}
