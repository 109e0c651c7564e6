//! `Idempotency-Key`: one order for a request, however often its client has to ask.
//!
//! The key commits with the order it made, in the order's row, so it is as durable as the order and there is never one
//! without the other. That a key is in flight is known in memory alone: a crash leaves no key locked.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::HeaderMap;
use sha2::{Digest, Sha256};

use crate::validation::OrderRequest;

/// Longest key, in characters.
pub const MAX_KEY_LENGTH: usize = 255;
/// The request header.
pub const HEADER: &str = "idempotency-key";

/// The header is there and is not one key of 1 to 255 visible ASCII characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Idempotency-Key must be sent once, with 1 to {MAX_KEY_LENGTH} visible ASCII characters")]
pub struct InvalidKey;

/// The key of a request, if it has one.
///
/// # Errors
/// When the header is repeated, empty, too long, or has characters that are not visible.
pub fn key(headers: &HeaderMap) -> Result<Option<String>, InvalidKey> {
    let mut values = headers.get_all(HEADER).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(InvalidKey);
    }
    let key = value.to_str().map_err(|_| InvalidKey)?;
    let legal = (1..=MAX_KEY_LENGTH).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
    if legal { Ok(Some(key.to_owned())) } else { Err(InvalidKey) }
}

/// SHA-256 of what the request asks for. Bodies that differ in whitespace, key order or unknown fields alone have the
/// same hash.
pub fn request_hash(request: &OrderRequest) -> Vec<u8> {
    let normalised = serde_json::to_vec(request).expect("an order has string keys and finite numbers only");
    Sha256::digest(normalised).to_vec()
}

/// The keys whose orders this replica is inserting now.
#[derive(Clone, Default)]
pub struct InFlight {
    keys: Arc<Mutex<HashSet<String>>>,
}

impl InFlight {
    /// Takes the key until the claim is dropped, or `None` when it is taken.
    pub fn claim(&self, key: &str) -> Option<Claim> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.insert(key.to_owned()).then(|| Claim { keys: self.keys.clone(), key: key.to_owned() })
    }
}

/// A key taken. Dropping it gives the key back.
pub struct Claim {
    keys: Arc<Mutex<HashSet<String>>>,
    key: String,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use serde_json::json;

    use super::*;
    use crate::validation::order_request;

    fn headers(values: &[&[u8]]) -> HeaderMap {
        values.iter().map(|v| (HEADER.parse().unwrap(), HeaderValue::from_bytes(v).unwrap())).collect()
    }

    #[test]
    fn a_key_has_1_to_255_visible_characters() {
        assert_eq!(key(&HeaderMap::new()), Ok(None));
        assert_eq!(key(&headers(&[b"order-1"])), Ok(Some("order-1".to_owned())));
        assert!(key(&headers(&[&[b'k'; 255]])).is_ok());
        for bad in [&b""[..], &[b'k'; 256], b"a b", b"a\tb", "clé".as_bytes()] {
            assert_eq!(key(&headers(&[bad])), Err(InvalidKey), "{bad:?}");
        }
        assert_eq!(key(&headers(&[b"a", b"b"])), Err(InvalidKey));
    }

    #[test]
    fn the_hash_is_of_the_order_and_not_of_its_spelling() {
        let parse = |body: &str| order_request(&serde_json::from_str(body).unwrap()).unwrap();
        let one = parse(
            r#"{"customerId":"c","currency":"EUR","items":[{"sku":"A","quantity":1,"unitPrice":5}],
            "payment":{"token":"t"},"shipping":{"name":"n","street":"s","city":"c","postalCode":"p","country":"FR"}}"#,
        );
        let same = parse(
            r#"{"shipping":{"country":"FR","name":"n","street":"s","city":"c","postalCode":"p","floor":3},
            "payment":{"token":"\u0074"},"items":[{"unitPrice":5,"sku":"A","quantity":1}],"currency":"EUR","customerId":"c"}"#,
        );
        assert_eq!(request_hash(&one), request_hash(&same));
        let mut other = serde_json::to_value(&one).unwrap();
        other["items"][0]["quantity"] = json!(2);
        assert_ne!(request_hash(&one), request_hash(&order_request(&other).unwrap()));
    }

    #[test]
    fn a_key_is_claimed_once_until_it_is_given_back() {
        let in_flight = InFlight::default();
        let claim = in_flight.claim("k").expect("free");
        assert!(in_flight.claim("k").is_none());
        assert!(in_flight.claim("other").is_some());
        drop(claim);
        assert!(in_flight.claim("k").is_some());
    }
}
