//! The fault proxy between the parts of the stack, by its HTTP interface.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use stack::spawn::Program;
use tokio::process::Child;

use super::kinds::Link;
use super::stand::until;

/// A running fault proxy; it ends with the value.
pub(super) struct Proxy {
    url: String,
    client: Client,
    _child: Child,
}

impl Proxy {
    /// Starts the program of `programs`; its log and port file go to `folder`.
    pub(super) async fn start(programs: &Path, folder: &Path) -> anyhow::Result<Self> {
        let port_file = folder.join("fault-proxy.port");
        let program = Program::new(programs.join("fault-proxy"), folder.join("fault-proxy.log"))
            .variable("HTTP_PORT", "0")
            .variable("HTTP_PORT_FILE", &port_file);
        let child = program.spawn().await?;
        let mut address = None;
        until("the fault proxy to listen", Duration::from_secs(20), async || {
            address = std::fs::read_to_string(&port_file).ok()?.trim().parse::<SocketAddr>().ok();
            address.map(drop)
        })
        .await?;
        let url = address.map(|address| format!("http://{address}")).context("the address of the fault proxy")?;
        Ok(Self { url, client: Client::new(), _child: child })
    }

    /// Makes the proxy of `link` to a port of this machine, and gives the port where it listens.
    pub(super) async fn open(&self, link: Link, port: u16) -> anyhow::Result<u16> {
        let proxy = json!({ "name": link.name(), "upstream": format!("127.0.0.1:{port}") });
        let made = self.ask(Method::POST, "/proxies", Some(&proxy)).await?;
        let address: SocketAddr = made["listen"].as_str().context("where the proxy listens")?.parse()?;
        Ok(address.port())
    }

    /// Puts a toxic on `link`.
    pub(super) async fn add(&self, link: Link, toxic: &Value) -> anyhow::Result<()> {
        self.ask(Method::POST, &format!("/proxies/{}/toxics", link.name()), Some(toxic)).await.map(drop)
    }

    /// Takes the toxic of this name away; one that is not there is no error.
    pub(super) async fn remove(&self, link: Link, toxic: &str) -> anyhow::Result<()> {
        let path = format!("/proxies/{}/toxics/{toxic}", link.name());
        let response = self.client.delete(format!("{}{path}", self.url)).send().await?;
        let status = response.status();
        anyhow::ensure!(status.is_success() || status.as_u16() == 404, "{path} could not be removed: {status}");
        Ok(())
    }

    /// Takes every toxic away.
    pub(super) async fn heal(&self) -> anyhow::Result<()> {
        self.ask(Method::POST, "/reset", None).await.map(drop)
    }

    /// The sum of a metric over the series of `toxic` on `link`.
    pub(super) async fn hits(&self, metric: &str, link: Link, toxic: &str) -> anyhow::Result<f64> {
        let text = self.client.get(format!("{}/metrics", self.url)).send().await?.text().await?;
        let labels = [format!("proxy=\"{}\"", link.name()), format!("toxic=\"{toxic}\"")];
        let wanted = |line: &&str| line.starts_with(metric) && labels.iter().all(|label| line.contains(label));
        let value = |line: &str| line.rsplit_once(' ')?.1.parse::<f64>().ok();
        Ok(text.lines().filter(wanted).filter_map(value).sum())
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let mut request = self.client.request(method.clone(), format!("{}{path}", self.url));
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.timeout(Duration::from_secs(30)).send().await?;
        let status = response.status();
        let text = response.text().await?;
        if !status.is_success() {
            bail!("the fault proxy answers {method} {path} with {status}: {text}");
        }
        Ok(serde_json::from_str(&text).unwrap_or_default())
    }
}
