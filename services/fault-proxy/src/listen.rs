//! Where a proxy may listen.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::net::lookup_host;

use crate::error::ApiError;

/// The address that `listen` means. An empty one is a free port; one without a host is loopback, or every address of
/// the machine where remote clients are allowed.
///
/// # Errors
/// When it cannot be read or resolved, or is not loopback and has to be.
pub(crate) async fn resolve(listen: &str, allow_remote: bool) -> Result<SocketAddr, ApiError> {
    let refuse = |reason: String| ApiError::Address { address: listen.to_owned(), reason };
    let any_host = if allow_remote { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST };
    let address = match listen.strip_prefix(':') {
        _ if listen.is_empty() => SocketAddr::new(any_host.into(), 0),
        Some(port) => {
            let port = port.parse().map_err(|_| refuse("the port is a number from 0 to 65535".to_owned()))?;
            SocketAddr::new(any_host.into(), port)
        }
        None => {
            let found: Vec<_> = lookup_host(listen).await.map_err(|error| refuse(error.to_string()))?.collect();
            // As Toxiproxy: "localhost" is 127.0.0.1, and an IPv6 address is for those who write one.
            let preferred = found.iter().find(|address| address.is_ipv4()).or(found.first());
            *preferred.ok_or_else(|| refuse("the host has no address".to_owned()))?
        }
    };
    if allow_remote || is_loopback(address.ip()) {
        Ok(address)
    } else {
        Err(refuse("it is not loopback; PROXIES_ALLOW_REMOTE=true would allow it".to_owned()))
    }
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn local(listen: &str) -> Option<String> {
        resolve(listen, false).await.ok().map(|address| address.to_string())
    }

    #[tokio::test]
    async fn only_loopback_is_listened_on_unless_configuration_says_otherwise() {
        assert_eq!(local("").await.as_deref(), Some("127.0.0.1:0"));
        assert_eq!(local(":8001").await.as_deref(), Some("127.0.0.1:8001"));
        assert_eq!(local("localhost:8001").await.as_deref(), Some("127.0.0.1:8001"));
        assert_eq!(local("[::1]:8001").await.as_deref(), Some("[::1]:8001"));
        for refused in ["0.0.0.0:8001", "[::]:8001", "192.0.2.1:8001", "[::ffff:192.0.2.1]:1", ":x", ":70000", "8001"] {
            assert_eq!(local(refused).await, None, "{refused}");
        }
        assert_eq!(resolve(":8001", true).await.unwrap().to_string(), "0.0.0.0:8001");
        assert_eq!(resolve("0.0.0.0:8001", true).await.unwrap().to_string(), "0.0.0.0:8001");
    }
}
