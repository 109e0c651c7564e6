//! Why a request is refused, in Toxiproxy's words and with its status codes: clients compare both.

use std::io;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// A refusal.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// The body is no JSON, or a field has a wrong type.
    #[error("bad request body: {0}")]
    Body(#[from] serde_json::Error),
    /// A field must be there and is not.
    #[error("missing required field: {0}")]
    MissingField(String),
    /// The address cannot be read, or has no address.
    #[error("listen address {address:?} cannot be used: {reason}")]
    Address {
        /// As the client gave it.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no proxy of this name.
    #[error("proxy not found")]
    NoProxy,
    /// There is one of this name.
    #[error("proxy already exists")]
    ProxyExists,
    /// Neither of the two directions.
    #[error("stream was invalid, can be either upstream or downstream")]
    Stream,
    /// No toxic is called so.
    #[error("invalid toxic type")]
    ToxicType,
    /// The proxy has one of this name.
    #[error("toxic already exists")]
    ToxicExists,
    /// The proxy has none of this name.
    #[error("toxic not found")]
    NoToxic,
    /// The port cannot be opened.
    #[error("listen tcp {address}: {source}")]
    Listen {
        /// Where the proxy should have listened.
        address: String,
        /// What the system said.
        source: io::Error,
    },
}

/// The body of a refusal.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    /// What is wrong.
    pub(crate) error: String,
    /// The HTTP status code again.
    pub(crate) status: u16,
}

impl ApiError {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Body(_) | Self::MissingField(_) | Self::Address { .. } | Self::Stream | Self::ToxicType => {
                StatusCode::BAD_REQUEST
            }
            Self::NoProxy | Self::NoToxic => StatusCode::NOT_FOUND,
            Self::ProxyExists | Self::ToxicExists => StatusCode::CONFLICT,
            Self::Listen { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    pub(crate) fn body(&self) -> ErrorBody {
        ErrorBody { error: self.to_string(), status: self.status().as_u16() }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status(), Json(self.body())).into_response()
    }
}
