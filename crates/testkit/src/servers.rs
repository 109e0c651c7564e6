//! The servers that all tests share.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use serde::Deserialize;
use stack::links::Links;
use stack::ports::Ports;
use stack::servers::Endpoints;

/// Names the file that says where the servers are.
const SERVERS_VARIABLE: &str = "SYMPHONY_TEST_SERVERS";
const HOW_TO_RUN: &str = "tests on real servers need SYMPHONY_TEST_SERVERS, the path of a file that describes \
    running servers: `./symphony test` starts them and sets it; with a stack from `./symphony up` it is \
    .symphony/state.json";

/// The ports on loopback where PostgreSQL, Kafka and Kafka Connect listen. PostgreSQL's superuser `postgres` needs no
/// password.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Servers {
    /// PostgreSQL.
    pub postgres: u16,
    /// The broker.
    pub kafka: u16,
    /// Kafka Connect's REST interface.
    pub connect: u16,
    /// What stands between them and the services; nothing between those that all tests share.
    #[serde(skip)]
    pub links: Links,
}

/// What `status --json` prints, as far as it matters here.
#[derive(Deserialize)]
struct State {
    components: Vec<Component>,
}

#[derive(Deserialize)]
struct Component {
    name: String,
    url: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Description {
    Servers(Servers),
    State(State),
}

impl Servers {
    /// The servers described by the file that `SYMPHONY_TEST_SERVERS` names: an object with the three ports,
    /// or the state of a stack that `symphony up` started.
    pub fn from_environment() -> anyhow::Result<Self> {
        let path = PathBuf::from(std::env::var_os(SERVERS_VARIABLE).ok_or_else(|| anyhow!(HOW_TO_RUN))?);
        Self::read(&path).context(HOW_TO_RUN)
    }

    /// The servers described by the file at `path`.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        match serde_json::from_str(text)? {
            Description::Servers(servers) => Ok(servers),
            Description::State(state) => {
                let port = |name: &str| {
                    let found = state.components.iter().find(|component| component.name == name);
                    let url = found.and_then(|component| component.url.as_deref()).unwrap_or_default();
                    port(url).ok_or_else(|| anyhow!("{name} has no url with a port"))
                };
                Ok(Self {
                    postgres: port("postgres")?,
                    kafka: port("kafka")?,
                    connect: port("connect")?,
                    links: Links::default(),
                })
            }
        }
    }

    /// As the crate that starts them knows them.
    pub fn endpoints(&self) -> Endpoints {
        let ports = Ports { postgres: self.postgres, kafka: self.kafka, connect: self.connect };
        Endpoints { ports, links: self.links.clone() }
    }
}

/// The port of a URL that may have a scheme, a user and a path.
fn port(url: &str) -> Option<u16> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next()?.rsplit_once(':')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_and_the_state_of_a_stack_give_the_same_servers() {
        let described = r#"{"postgres":54321,"kafka":9092,"connect":8083}"#;
        let state = r#"{"components":[
            {"name":"postgres","url":"postgres://postgres@127.0.0.1:54321/postgres","pid":1},
            {"name":"kafka","url":"127.0.0.1:9092"},{"name":"connect","url":"http://127.0.0.1:8083/"},
            {"name":"order-api"}]}"#;
        assert_eq!(Servers::parse(described).unwrap(), Servers::parse(state).unwrap());
    }
}
