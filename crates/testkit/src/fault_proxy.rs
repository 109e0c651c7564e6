//! A fault proxy between a test's programs and what they talk to.

use std::net::SocketAddr;
use std::path::Path;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::process::Process;
use crate::workspace;

/// A running fault proxy; it ends with the value.
///
/// ```no_run
/// # async fn example(env: testkit::Env) {
/// let faults = testkit::FaultProxy::start(env.dir()).await;
/// let postgres = faults.create("postgres", &format!("127.0.0.1:{}", env.servers().postgres)).await;
/// faults.add("postgres", &serde_json::json!({ "type": "latency", "attributes": { "latency": 100 } })).await;
/// # }
/// ```
pub struct FaultProxy {
    process: Process,
    client: reqwest::Client,
}

impl FaultProxy {
    /// Starts the program on a free port; its log is in `dir`, which holds no other one's.
    ///
    /// # Panics
    /// When it is not ready in time; the message ends with its log.
    pub async fn start(dir: &Path) -> Self {
        Self::start_with(dir, &[]).await
    }

    /// Like [`FaultProxy::start`], with environment variables such as `PROXIES_SEED`.
    ///
    /// # Panics
    /// When it is not ready in time; the message ends with its log.
    pub async fn start_with(dir: &Path, settings: &[(&str, &str)]) -> Self {
        let mut environment = vec![("LOG_FORMAT".to_owned(), "pretty".to_owned())];
        environment.extend(settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        let process = Process::prepare(dir, "fault-proxy", workspace::program("fault-proxy"), environment);
        process.start().await;
        // The program closes idle connections: one that is used just then fails the request.
        Self { process, client: reqwest::Client::builder().pool_max_idle_per_host(0).build().expect("a client") }
    }

    /// The program.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Makes a proxy to `upstream` and gives the address where it listens.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn create(&self, name: &str, upstream: &str) -> SocketAddr {
        self.create_with(name, upstream, &json!([])).await
    }

    /// Makes a proxy whose first connection meets `toxics` already.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn create_with(&self, name: &str, upstream: &str, toxics: &Value) -> SocketAddr {
        let proxy = json!({ "name": name, "upstream": upstream, "toxics": toxics });
        let made = self.ask(Method::POST, "/proxies", Some(&proxy)).await;
        made["listen"].as_str().and_then(|listen| listen.parse().ok()).expect("an address")
    }

    /// Closes a proxy and its connections.
    ///
    /// # Panics
    /// When there is none of this name.
    pub async fn delete(&self, proxy: &str) {
        self.ask(Method::DELETE, &format!("/proxies/{proxy}"), None).await;
    }

    /// Closes the port of a proxy with its connections, or opens it again.
    ///
    /// # Panics
    /// When there is none of this name, or the port cannot be opened.
    pub async fn enable(&self, proxy: &str, enabled: bool) {
        self.ask(Method::PATCH, &format!("/proxies/{proxy}"), Some(&json!({ "enabled": enabled }))).await;
    }

    /// Adds a toxic as Toxiproxy's interface has it: `{"type", "stream"?, "name"?, "toxicity"?, "attributes"?}`.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn add(&self, proxy: &str, toxic: &Value) {
        self.ask(Method::POST, &format!("/proxies/{proxy}/toxics"), Some(toxic)).await;
    }

    /// Changes `attributes` or `toxicity` of a toxic.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn change(&self, proxy: &str, toxic: &str, changes: &Value) {
        self.ask(Method::PATCH, &format!("/proxies/{proxy}/toxics/{toxic}"), Some(changes)).await;
    }

    /// Removes a toxic; without a name of its own it is called `<type>_<stream>`.
    ///
    /// # Panics
    /// When there is none of this name.
    pub async fn remove(&self, proxy: &str, toxic: &str) {
        self.ask(Method::DELETE, &format!("/proxies/{proxy}/toxics/{toxic}"), None).await;
    }

    /// Enables every proxy and removes every toxic.
    ///
    /// # Panics
    /// When a port cannot be opened.
    pub async fn reset(&self) {
        self.ask(Method::POST, "/reset", None).await;
    }

    /// The sum of all series of a metric that have each of `labels`; 0 if there is none.
    ///
    /// # Panics
    /// When the program does not answer.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let url = format!("{}/metrics", self.process.url());
        let text = self.client.get(url).send().await.expect("an answer").text().await.expect("a body");
        let wanted = |line: &&str| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|(label, value)| line.contains(&format!("{label}=\"{value}\"")))
        };
        let value = |line: &str| line.rsplit_once(' ').and_then(|(_, value)| value.parse::<f64>().ok());
        text.lines().filter(wanted).filter_map(value).sum()
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Value {
        let mut request = self.client.request(method.clone(), format!("{}{path}", self.process.url()));
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        let status = response.status();
        let text = response.text().await.expect("a body");
        assert!(status.is_success(), "{method} {path}: {status} {text}");
        if status == StatusCode::NO_CONTENT {
            return Value::Null;
        }
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{method} {path}: {error}: {text}"))
    }
}
