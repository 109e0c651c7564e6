//! Which ports the servers and services listen on. All of them listen on loopback only.

use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};

use crate::Error;

/// Where free ports are looked for: below the range from which the kernel takes the ports of outgoing
/// connections, so that none of those grabs one between our look and the server's bind.
const FREE_RANGE: std::ops::Range<u16> = 20_000..32_000;

/// The ports of the three servers; 0 asks for a free one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// PostgreSQL.
    pub postgres: u16,
    /// The broker's listener for clients.
    pub kafka: u16,
    /// Kafka Connect's REST interface.
    pub connect: u16,
}

impl Ports {
    /// The ports that users know.
    pub const DEFAULT: Self = Self { postgres: 54_321, kafka: 9092, connect: 8083 };
    /// Three free ports.
    pub const FREE: Self = Self { postgres: 0, kafka: 0, connect: 0 };
}

/// `wanted` if nobody listens there, else a free port.
pub fn usable_or_free(wanted: u16) -> Result<u16, Error> {
    if wanted != 0 && is_free(wanted) { Ok(wanted) } else { free() }
}

/// A port that nobody listens on. Nothing reserves it: the caller should use it soon.
pub fn free() -> Result<u16, Error> {
    let span = u64::from(FREE_RANGE.end - FREE_RANGE.start);
    let seeds = RandomState::new();
    (0..1_000_u32)
        .map(|attempt| FREE_RANGE.start + u16::try_from(seeds.hash_one(attempt) % span).unwrap_or_default())
        .find(|port| is_free(*port))
        .ok_or_else(|| Error::Other(format!("no free port found in {FREE_RANGE:?}")))
}

/// Whether a server could listen on this port of the loopback interface.
pub fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_replaced_by_a_free_one() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let other = usable_or_free(port).unwrap();
        assert_ne!(other, port);
        assert!(is_free(other));
        drop(taken);
        assert_eq!(usable_or_free(port).unwrap(), port);
    }

    #[test]
    fn a_listener_on_all_interfaces_takes_the_port_too() {
        let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        assert!(!is_free(taken.local_addr().unwrap().port()));
    }
}
