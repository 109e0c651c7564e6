//! All services of the order path, as one value.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use uuid::Uuid;

use crate::env::{Env, SERVICES};
use crate::process::Process;
use crate::wait::wait_for;

/// What a cluster shall be, before it starts.
pub struct ClusterBuilder<'a> {
    env: &'a Env,
    overrides: Vec<(&'static str, String, String)>,
    instances: BTreeMap<&'static str, usize>,
}

impl<'a> ClusterBuilder<'a> {
    pub(crate) fn new(env: &'a Env) -> Self {
        let instances = SERVICES.iter().map(|(service, _)| (*service, 1)).collect();
        Self { env, overrides: Vec::new(), instances }
    }

    /// Sets an environment variable of every instance of `service`.
    #[must_use]
    pub fn set(mut self, service: &'static str, key: &str, value: impl ToString) -> Self {
        self.overrides.push((service, key.to_owned(), value.to_string()));
        self
    }

    /// Sets an environment variable of every service.
    #[must_use]
    pub fn set_all(mut self, key: &str, value: impl ToString) -> Self {
        for (service, _) in SERVICES {
            self = self.set(service, key, value.to_string());
        }
        self
    }

    /// Runs `count` instances of `service`; 0 leaves it out.
    #[must_use]
    pub fn instances(mut self, service: &'static str, count: usize) -> Self {
        self.instances.insert(service, count);
        self
    }

    /// Starts the connector and every service, and waits until all are ready.
    ///
    /// # Panics
    /// When one is not ready in time; the message ends with its log.
    pub async fn start(self) -> Cluster<'a> {
        let mut processes: BTreeMap<&'static str, Vec<Process>> = BTreeMap::new();
        for (service, _) in SERVICES {
            let of_service = self.overrides.iter().filter(|(name, ..)| name == service);
            let overrides: Vec<(&str, &str)> =
                of_service.map(|(_, key, value)| (key.as_str(), value.as_str())).collect();
            for _ in 0..self.instances[service] {
                let mut process = self.env.prepare_service(service, &overrides).await;
                // Who asks the orchestrator finds it where it is; it is the first in the list.
                if let Some(orchestrator) = processes.get("orchestrator").and_then(|instances| instances.first()) {
                    process.set_env("ORCHESTRATOR_ADDRESS_FILE", &orchestrator.port_file().display().to_string());
                }
                process.launch();
                processes.entry(service).or_default().push(process);
            }
        }
        self.env.start_connector().await;
        let cluster = Cluster { env: self.env, client: reqwest::Client::new(), processes };
        for process in cluster.all() {
            process.ready().await;
        }
        cluster
    }
}

/// Running services with their connector. Everything ends with the value.
pub struct Cluster<'a> {
    env: &'a Env,
    client: reqwest::Client,
    processes: BTreeMap<&'static str, Vec<Process>>,
}

impl Cluster<'_> {
    /// The first instance of `service`.
    ///
    /// # Panics
    /// When the cluster has none.
    pub fn service(&self, service: &str) -> &Process {
        self.instances(service).first().unwrap_or_else(|| panic!("no {service} in this cluster"))
    }

    /// The first instance of `service`, to change its environment.
    ///
    /// # Panics
    /// When the cluster has none.
    pub fn service_mut(&mut self, service: &str) -> &mut Process {
        let process = self.processes.get_mut(service).and_then(|processes| processes.first_mut());
        process.unwrap_or_else(|| panic!("no {service} in this cluster"))
    }

    /// Every instance of `service`.
    pub fn instances(&self, service: &str) -> &[Process] {
        self.processes.get(service).map_or(&[], Vec::as_slice)
    }

    /// Every process.
    pub fn all(&self) -> impl Iterator<Item = &Process> {
        self.processes.values().flatten()
    }

    /// The environment it runs in.
    pub fn env(&self) -> &Env {
        self.env
    }

    /// The HTTP client that the methods below use.
    pub fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// Stops every service in order (SIGTERM), all at once.
    pub async fn stop_all(&self) {
        for process in self.all() {
            process.terminate();
        }
        // Only waits: a second signal would mean "at once".
        for process in self.all() {
            process.wait_stopped().await;
        }
    }

    /// Starts every service that is not running and gives the names of those.
    pub async fn revive(&self) -> Vec<String> {
        let dead: Vec<&Process> = self.all().filter(|process| process.pid().is_none()).collect();
        for process in &dead {
            process.launch();
        }
        for process in &dead {
            process.ready().await;
        }
        dead.iter().map(|process| process.name().to_owned()).collect()
    }

    /// Places an order and gives its id.
    ///
    /// # Panics
    /// When the answer is not 202.
    pub async fn place(&self, order: &Value) -> Uuid {
        let response = self.post_order(order).await;
        let (status, body) = (response.status(), response.text().await.expect("a body"));
        assert_eq!(status, 202, "POST /api/orders: {body}");
        let answer: Value = serde_json::from_str(&body).expect("JSON");
        answer["orderId"].as_str().and_then(|id| id.parse().ok()).expect("an orderId")
    }

    /// Posts `order` as it is.
    ///
    /// # Panics
    /// When order-api cannot be reached.
    pub async fn post_order(&self, order: &Value) -> reqwest::Response {
        let url = format!("{}/api/orders", self.service("order-api").url());
        self.client.post(url).json(order).send().await.expect("order-api answers")
    }

    /// GET of `path` at `service`, as JSON.
    ///
    /// # Panics
    /// When the answer is no JSON or no success.
    pub async fn get(&self, service: &str, path: &str) -> Value {
        let url = format!("{}{path}", self.service(service).url());
        let response = self.client.get(&url).send().await.unwrap_or_else(|error| panic!("{url}: {error}"));
        let status = response.status();
        let body = response.text().await.expect("a body");
        assert!(status.is_success(), "GET {url}: {status} {body}");
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("GET {url}: {error}: {body}"))
    }

    /// Waits until the order rests (terminal or PARKED) and gives it as order-api shows it.
    ///
    /// # Panics
    /// When it is still PENDING after `timeout`; the message has its saga.
    pub async fn ended(&self, order: Uuid, timeout: Duration) -> Value {
        let path = format!("/api/orders/{order}");
        let rests = wait_for(timeout, async || {
            let order = self.get("order-api", &path).await;
            (order["status"] != "PENDING").then_some(order)
        });
        match rests.await {
            Some(order) => order,
            None => panic!("order {order} is PENDING after {timeout:?}: {:#}", self.saga(order).await),
        }
    }

    /// The saga of an order as the orchestrator shows it.
    pub async fn saga(&self, order: Uuid) -> Value {
        self.get("orchestrator", &format!("/api/sagas/{order}")).await
    }
}
