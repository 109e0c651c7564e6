//! Proxies and toxics as clients write and read them.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::metrics::Hits;
use crate::toxics::Attributes;

/// The way of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the client to the upstream.
    Upstream,
    /// From the upstream to the client.
    Downstream,
}

impl Direction {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Upstream => "upstream",
            Self::Downstream => "downstream",
        }
    }

    fn parse(name: &str) -> Result<Self, ApiError> {
        match name.to_lowercase().as_str() {
            "upstream" => Ok(Self::Upstream),
            "downstream" => Ok(Self::Downstream),
            _ => Err(ApiError::Stream),
        }
    }
}

/// A toxic of a proxy. A change makes another value with the same id.
#[derive(Clone, Debug)]
pub(crate) struct Toxic {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) kind: String,
    /// As the client wrote it: "Upstream" will do.
    pub(crate) stream: String,
    pub(crate) direction: Direction,
    pub(crate) toxicity: f64,
    pub(crate) attributes: Attributes,
    pub(crate) hits: Hits,
}

impl Toxic {
    /// The toxic that `new` describes, for the proxy named `proxy`.
    ///
    /// # Errors
    /// When its stream, type or attributes are wrong; checked in Toxiproxy's order.
    pub(crate) fn new(new: NewToxic, proxy: &str, id: u64) -> Result<Self, ApiError> {
        let direction = Direction::parse(&new.stream)?;
        let name = if new.name.is_empty() { format!("{}_{}", new.kind, new.stream) } else { new.name };
        let attributes = Attributes::of_type(&new.kind).ok_or(ApiError::ToxicType)?.with(&new.attributes)?;
        let hits = Hits::of(proxy, &name, &new.kind, direction);
        Ok(Self { id, name, kind: new.kind, stream: new.stream, direction, toxicity: new.toxicity, attributes, hits })
    }

    /// This with what `changes` has.
    ///
    /// # Errors
    /// When an attribute has a wrong type.
    pub(crate) fn with(&self, changes: &ToxicChanges) -> Result<Self, ApiError> {
        Ok(Self {
            toxicity: changes.toxicity.unwrap_or(self.toxicity),
            attributes: self.attributes.with(&changes.attributes)?,
            ..self.clone()
        })
    }

    pub(crate) fn view(&self) -> Result<ToxicView, ApiError> {
        Ok(ToxicView {
            attributes: serde_json::to_value(&self.attributes)?,
            name: self.name.clone(),
            kind: self.kind.clone(),
            stream: self.stream.clone(),
            toxicity: self.toxicity,
        })
    }
}

/// A proxy to be made.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct NewProxy {
    /// Unique.
    #[serde(default)]
    pub(crate) name: String,
    /// `host:port`; port 0 takes a free one, no host is loopback, nothing is both.
    #[serde(default)]
    pub(crate) listen: String,
    /// `host:port` of the server.
    #[serde(default)]
    pub(crate) upstream: String,
    /// Whether it listens.
    #[serde(default = "yes")]
    pub(crate) enabled: bool,
    /// Toxics that are there before the first connection. Not in Toxiproxy, which ignores them here.
    #[serde(default)]
    pub(crate) toxics: Vec<NewToxic>,
    /// In place of the seed of the configuration. Not in Toxiproxy.
    #[serde(default)]
    pub(crate) seed: Option<u64>,
}

/// What a proxy shall become; what is missing stays.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct ProxyChanges {
    /// Another address closes all connections.
    pub(crate) listen: Option<String>,
    /// Another server closes all connections.
    pub(crate) upstream: Option<String>,
    /// False closes the port and all connections.
    pub(crate) enabled: Option<bool>,
}

/// A toxic to be made.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct NewToxic {
    /// Unique in its proxy; `<type>_<stream>` if it is missing.
    #[serde(default)]
    pub(crate) name: String,
    /// `latency`, `bandwidth`, `slow_close`, `timeout`, `reset_peer`, `slicer`, `limit_data`, `noop`, or `half_open`, which
    /// is not in Toxiproxy.
    #[serde(default, rename = "type")]
    pub(crate) kind: String,
    /// `upstream` (what the client sends) or `downstream` (what it gets).
    #[serde(default = "downstream")]
    pub(crate) stream: String,
    /// The share of connections that it hits, 0 to 1.
    #[serde(default = "always")]
    pub(crate) toxicity: f64,
    /// By its type.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub(crate) attributes: Map<String, Value>,
}

/// What a toxic shall become; what is missing stays.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct ToxicChanges {
    /// The share of connections that it hits, 0 to 1.
    pub(crate) toxicity: Option<f64>,
    /// By its type.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub(crate) attributes: Map<String, Value>,
}

/// A proxy.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProxyView {
    /// Unique.
    pub(crate) name: String,
    /// Where it listens; while it is disabled, where it shall.
    pub(crate) listen: String,
    /// `host:port` of the server.
    pub(crate) upstream: String,
    /// Whether it listens.
    pub(crate) enabled: bool,
    /// In the order in which bytes meet them, those of the upstream direction first.
    pub(crate) toxics: Vec<ToxicView>,
    /// If the proxy was made with one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seed: Option<u64>,
}

/// A toxic.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ToxicView {
    /// By its type.
    #[schema(value_type = Object)]
    attributes: Value,
    /// Unique in its proxy.
    name: String,
    /// What it does.
    #[serde(rename = "type")]
    kind: String,
    /// `upstream` or `downstream`.
    stream: String,
    /// The share of connections that it hits, 0 to 1.
    toxicity: f64,
}

/// Toxics as clients see them: upstream first, each direction in the order in which they were added.
pub(crate) fn views(toxics: &[Arc<Toxic>]) -> Result<Vec<ToxicView>, ApiError> {
    let of = |direction| toxics.iter().filter(move |toxic| toxic.direction == direction);
    of(Direction::Upstream).chain(of(Direction::Downstream)).map(|toxic| toxic.view()).collect()
}

/// Reads a body whatever its content type. A null is a field that is missing, as in Toxiproxy.
///
/// # Errors
/// When it is no JSON, or a field has a wrong type.
pub(crate) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    Ok(serde_json::from_value(without_nulls(serde_json::from_slice(body)?))?)
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(name, value)| (name, without_nulls(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

fn yes() -> bool {
    true
}

fn always() -> f64 {
    1.0
}

fn downstream() -> String {
    "downstream".to_owned()
}
