//! Where clients are sent instead of straight to a server, because something stands between them: a fault proxy.

use std::collections::BTreeMap;

/// The client that is Kafka Connect, among those of PostgreSQL.
pub const CONNECT: &str = "connect";

/// The ports of what stands between. Whoever is not named here goes straight; so do the supervisor and the commands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links {
    /// To PostgreSQL, by client: a service's name, or [`CONNECT`].
    pub postgres: BTreeMap<String, u16>,
    /// To the broker, for all services.
    pub services_to_kafka: Option<Listener>,
    /// To the broker, for Kafka Connect.
    pub connect_to_kafka: Option<Listener>,
}

/// A further listener of the broker. It needs one for each way that clients come: whatever address a client is given
/// first, it goes on with the one that the broker advertises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where the broker listens.
    pub port: u16,
    /// Where clients are sent, which leads to `port` in the end.
    pub advertised: u16,
}

impl Links {
    /// The further listeners and their names in the broker's configuration.
    pub(crate) fn listeners(&self) -> impl Iterator<Item = (&'static str, Listener)> {
        let named = [("SERVICES", self.services_to_kafka), ("CONNECT", self.connect_to_kafka)];
        named.into_iter().filter_map(|(name, listener)| Some((name, listener?)))
    }
}
