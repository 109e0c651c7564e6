//! What these tests share.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use service_kit::Running;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A fault proxy inside the test's process.
pub(crate) struct Proxy {
    running: Running,
    client: reqwest::Client,
}

impl Proxy {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    pub(crate) async fn start_with(settings: &[(&str, &str)]) -> Self {
        let mut all = vec![("HTTP_PORT", "0"), ("PROXIES_SEED", "7")];
        all.extend(settings);
        let running = service_kit::start(fault_proxy::SERVICE, &all, fault_proxy::build).await.expect("a service");
        let proxy = Self { running, client: reqwest::Client::new() };
        testkit::wait_until("the service to be ready", Duration::from_secs(10), async || {
            let ready = proxy.client.get(proxy.url("/readyz")).send().await.expect("an answer");
            ready.status().is_success()
        })
        .await;
        proxy
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.running.url())
    }

    pub(crate) fn client(&self) -> &reqwest::Client {
        &self.client
    }

    pub(crate) async fn stop(self) -> service_kit::Outcome {
        self.running.stop().await
    }

    /// Status and body, whatever they are; an empty body is null.
    pub(crate) async fn ask(&self, method: Method, path: &str, body: &Value) -> (StatusCode, Value) {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        self.ask_text(method, path, text).await
    }

    pub(crate) async fn ask_text(&self, method: Method, path: &str, body: String) -> (StatusCode, Value) {
        let response = self.client.request(method, self.url(path)).body(body).send().await.expect("an answer");
        let (status, text) = (response.status(), response.text().await.expect("a body"));
        let value = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).expect("JSON") };
        (status, value)
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask(Method::GET, path, &Value::Null).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        body
    }

    /// Makes a proxy with `toxics` and connects to it.
    pub(crate) async fn connect(&self, name: &str, upstream: SocketAddr, toxics: Value) -> TcpStream {
        let proxy = json!({ "name": name, "upstream": upstream, "toxics": toxics });
        let (status, made) = self.ask(Method::POST, "/proxies", &proxy).await;
        assert_eq!(status, StatusCode::CREATED, "{made}");
        TcpStream::connect(made["listen"].as_str().expect("an address")).await.expect("a connection")
    }

    pub(crate) async fn add(&self, proxy: &str, toxic: Value) {
        let (status, body) = self.ask(Method::POST, &format!("/proxies/{proxy}/toxics"), &toxic).await;
        assert_eq!(status, StatusCode::OK, "{body}");
    }

    pub(crate) async fn remove(&self, proxy: &str, toxic: &str) {
        let path = format!("/proxies/{proxy}/toxics/{toxic}");
        let (status, body) = self.ask(Method::DELETE, &path, &Value::Null).await;
        assert_eq!(status, StatusCode::NO_CONTENT, "{body}");
    }

    /// The value of one series: its name with all labels.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let text = self.client.get(self.url("/metrics")).send().await.expect("an answer").text().await.expect("text");
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or(0.0)
    }
}

/// A server that sends back what it gets, until the client has finished.
pub(crate) async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                // A connection that breaks is what some tests are about.
                drop(tokio::io::copy(&mut read, &mut write).await);
                drop(write.shutdown().await);
            });
        }
    });
    address
}

/// A listener, and its address.
pub(crate) async fn server() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

/// Sends `bytes` and reads as many back.
pub(crate) async fn round_trip(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    stream.write_all(bytes).await?;
    let mut answer = vec![0; bytes.len()];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}
