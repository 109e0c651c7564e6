//! PostgreSQL, Kafka and Kafka Connect as plain processes on loopback.

mod connect;
mod java;
mod kafka;
mod kafka_probe;
mod postgres;
mod postgres_files;

use std::path::Path;
use std::sync::Arc;

use tokio::process::Child;

pub use connect::Connect;
pub use java::java;
pub use kafka::Kafka;
pub use postgres::Postgres;
pub(crate) use postgres_files::wipe_outside;

use crate::fetch::Files;
use crate::launch::{self, Launch};
use crate::layout::DataDir;
use crate::links::Links;
use crate::ports::{Ports, Reservation};
use crate::{Error, fetch};

/// Where the three servers are reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// Ports of the servers, all on 127.0.0.1.
    pub ports: Ports,
    /// What stands between the servers and their clients.
    pub links: Links,
}

impl Endpoints {
    /// Servers with nothing between them and their clients.
    pub fn straight(ports: Ports) -> Self {
        Self { ports, links: Links::default() }
    }

    /// URL of a database, for a role that needs no password.
    pub fn database(&self, role: &str, database: &str) -> String {
        format!("postgres://{role}@127.0.0.1:{}/{database}", self.ports.postgres)
    }

    /// The same for a `client` that [`Links`] may name.
    pub(crate) fn database_for(&self, client: &str, role: &str, database: &str) -> String {
        format!("postgres://{role}@127.0.0.1:{}/{database}", self.postgres_port_for(client))
    }

    /// PostgreSQL's port for a `client` that [`Links`] may name.
    pub(crate) fn postgres_port_for(&self, client: &str) -> u16 {
        self.links.postgres.get(client).copied().unwrap_or(self.ports.postgres)
    }

    /// `host:port` of the broker for the services.
    pub(crate) fn kafka_for_services(&self) -> String {
        let port = self.links.services_to_kafka.map_or(self.ports.kafka, |listener| listener.advertised);
        format!("127.0.0.1:{port}")
    }

    /// `host:port` of the broker.
    pub fn kafka(&self) -> String {
        format!("127.0.0.1:{}", self.ports.kafka)
    }

    /// Base URL of Connect's REST interface.
    pub fn connect(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.connect)
    }
}

/// The three servers of one data directory, not started.
#[derive(Clone)]
pub struct Servers {
    /// PostgreSQL.
    pub postgres: Arc<Postgres>,
    /// The broker.
    pub kafka: Arc<Kafka>,
    /// Kafka Connect.
    pub connect: Arc<Connect>,
    /// Where they will be reached.
    pub endpoints: Endpoints,
}

impl Servers {
    /// Servers on the wanted ports, or on free ones where a wanted port is taken or 0.
    pub fn new(data: &DataDir, files: &Files, wanted: Ports) -> Result<Self, Error> {
        Self::behind(data, files, wanted, Links::default())
    }

    /// Like [`Servers::new`], with something between them and their clients.
    pub fn behind(data: &DataDir, files: &Files, wanted: Ports, links: Links) -> Result<Self, Error> {
        let postgres = Reservation::wanted_or_free(wanted.postgres)?;
        let kafka = Reservation::wanted_or_free(wanted.kafka)?;
        let connect = Reservation::wanted_or_free(wanted.connect)?;
        let ports = Ports { postgres: postgres.port(), kafka: kafka.port(), connect: connect.port() };
        let kafka_for_connect = links.connect_to_kafka.map_or(ports.kafka, |listener| listener.advertised);
        Ok(Self {
            postgres: Arc::new(Postgres::new(data, files, postgres)?),
            kafka: Arc::new(Kafka::new(data, files, kafka, links.clone())?),
            connect: Arc::new(Connect::new(data, files, connect, kafka_for_connect)),
            endpoints: Endpoints { ports, links },
        })
    }
}

/// Servers that run until [`Running::stop`] is called or this is dropped; nothing restarts them.
pub struct Running {
    /// Where they are reached.
    pub endpoints: Endpoints,
    children: Vec<(Arc<dyn Launch>, Child)>,
}

/// Fetches what is missing, starts all three servers on the data in `data`, and waits until they are ready.
/// `announce` is called before a fetch with the folder that it fills.
pub async fn start_all(data: &DataDir, ports: Ports, announce: impl FnOnce(&Path)) -> Result<Running, Error> {
    data.create()?;
    let files = fetch::ensure(announce).await?;
    start(Servers::new(data, &files, ports)?).await
}

/// Starts servers whose data directory and files are there, and waits until they are ready.
pub async fn start(servers: Servers) -> Result<Running, Error> {
    let database = async { launch::start(servers.postgres.as_ref()).await };
    let streaming = async {
        let kafka = launch::start(servers.kafka.as_ref()).await?;
        let connect = launch::start(servers.connect.as_ref()).await?;
        Ok((kafka, connect))
    };
    let (postgres, (kafka, connect)) = tokio::try_join!(database, streaming)?;
    Ok(Running {
        endpoints: servers.endpoints,
        children: vec![(servers.connect, connect), (servers.kafka, kafka), (servers.postgres, postgres)],
    })
}

impl Running {
    /// Ends the servers cleanly, Connect first and PostgreSQL last.
    pub async fn stop(self) {
        for (launch, mut child) in self.children {
            launch::stop(launch.as_ref(), &mut child).await;
        }
    }
}
