//! Servers of one test alone, with a fault proxy on the way to each.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use stack::links::{CONNECT, Links, Listener};
use stack::ports::{Ports, Reservation};
use stack::{DataDir, fetch, servers};
use tempfile::TempDir;

use crate::env::SERVICES;
use crate::fault_proxy::FaultProxy;
use crate::servers::Servers;

/// PostgreSQL, Kafka and Connect that services and Connect reach only through a fault proxy; the test and the audit
/// reach them straight. They end with the value.
///
/// The proxies are called [`LinkedServers::links`]. Kafka has a listener for the services and one for Connect, each of
/// which advertises its proxy: a client that was given the proxy's address once would else go on without it.
pub struct LinkedServers {
    servers: Servers,
    links: Vec<String>,
    _running: servers::Running,
    _folder: TempDir,
}

impl LinkedServers {
    /// Starts them behind proxies of `faults`, which takes as long as any start of the servers.
    ///
    /// # Panics
    /// When they are not ready in time.
    pub async fn start(faults: &FaultProxy) -> Self {
        // Open to the user that PostgreSQL runs as: what lay elsewhere would outlive this folder.
        let open_to_all = Permissions::from_mode(0o755);
        let folder = tempfile::Builder::new().prefix("symphony-linked-").permissions(open_to_all).tempdir();
        let folder = folder.expect("a temporary folder");
        let data = DataDir::at(folder.path()).expect("a data directory");
        data.create().expect("a data directory");
        let files = fetch::ensure(|_| {}).await.expect("the servers' files");
        let local = |port: u16| format!("127.0.0.1:{port}");
        let mut names = Vec::new();
        let mut open = async |name: String, port: u16| {
            let address = faults.create(&name, &local(port)).await;
            names.push(name);
            address.port()
        };

        let reserved = free();
        let postgres = reserved.port();
        let mut links = Links::default();
        for client in SERVICES.iter().map(|(service, _)| *service).chain([CONNECT]) {
            let port = open(format!("{client}-postgres"), postgres).await;
            links.postgres.insert(client.to_owned(), port);
        }
        // Held until the broker listens there.
        let [services, connect] = [free(), free()];
        let advertised = open("services-kafka".to_owned(), services.port()).await;
        links.services_to_kafka = Some(Listener { port: services.port(), advertised });
        let advertised = open("connect-kafka".to_owned(), connect.port()).await;
        links.connect_to_kafka = Some(Listener { port: connect.port(), advertised });

        // Given back only for whoever reserves it next.
        drop(reserved);
        let wanted = Ports { postgres, ..Ports::FREE };
        let servers = servers::Servers::behind(&data, &files, wanted, links.clone()).expect("servers");
        let ports = servers.endpoints.ports;
        assert_eq!(ports.postgres, postgres, "somebody took the port that the proxies lead to");
        let running = servers::start(servers).await.unwrap_or_else(|error| panic!("the servers: {error}"));
        Self {
            servers: Servers { postgres: ports.postgres, kafka: ports.kafka, connect: ports.connect, links },
            links: names,
            _running: running,
            _folder: folder,
        }
    }

    /// Where they are.
    pub fn servers(&self) -> &Servers {
        &self.servers
    }

    /// The names of the proxies: `<client>-postgres` of each service and of `connect`, `services-kafka`, `connect-kafka`.
    pub fn links(&self) -> &[String] {
        &self.links
    }
}

fn free() -> Reservation {
    Reservation::free().expect("a free port")
}
