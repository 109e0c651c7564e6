//! Which ports the servers and services listen on. All of them listen on loopback only.

use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

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

/// A port that no other stack on this machine takes while this lives.
///
/// That nobody listens on a port is no protection: two stacks that start at the same moment both see it free, and
/// the second would take the first's servers for its own. So a stack also binds a name for each port, which the
/// kernel gives back when the process dies.
#[derive(Debug)]
pub struct Reservation {
    port: u16,
    _name: UnixDatagram,
}

impl Reservation {
    /// Reserves `wanted` if it is free and not reserved, else any other port.
    pub fn wanted_or_free(wanted: u16) -> Result<Self, Error> {
        Self::of(wanted).map_or_else(Self::free, Ok)
    }

    /// Reserves any free port.
    pub fn free() -> Result<Self, Error> {
        let span = u64::from(FREE_RANGE.end - FREE_RANGE.start);
        let seeds = RandomState::new();
        (0..1_000_u32)
            .map(|attempt| FREE_RANGE.start + u16::try_from(seeds.hash_one(attempt) % span).unwrap_or_default())
            .find_map(Self::of)
            .ok_or_else(|| Error::Other(format!("no free port found in {FREE_RANGE:?}")))
    }

    /// Reserves this port, if it is free and not reserved.
    pub fn of(port: u16) -> Option<Self> {
        let address = SocketAddr::from_abstract_name(format!("chaos-symphony/port/{port}")).ok()?;
        let name = UnixDatagram::bind_addr(&address).ok()?;
        (port != 0 && is_free(port)).then_some(Self { port, _name: name })
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Fails if another program listens on the port all the same.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if is_free(self.port) {
            return Ok(());
        }
        Err(Error::Other(format!("port {} is taken by another program", self.port)))
    }
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
        let other = Reservation::wanted_or_free(port).unwrap();
        assert_ne!(other.port(), port);
        assert!(is_free(other.port()));
        drop(taken);
        assert_eq!(Reservation::wanted_or_free(port).unwrap().port(), port);
    }

    #[test]
    fn a_reserved_port_is_given_to_nobody_else_until_it_is_given_back() {
        let first = Reservation::free().unwrap();
        let port = first.port();
        assert!(is_free(port), "nobody listens there yet");
        assert_ne!(Reservation::wanted_or_free(port).unwrap().port(), port);
        drop(first);
        assert_eq!(Reservation::wanted_or_free(port).unwrap().port(), port);
    }

    #[test]
    fn a_listener_on_all_interfaces_takes_the_port_too() {
        let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        assert!(!is_free(taken.local_addr().unwrap().port()));
    }
}
