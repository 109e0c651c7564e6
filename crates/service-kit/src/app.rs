//! The wiring of a service.

use std::future::Future;
use std::sync::{Arc, OnceLock};

use chrono::SecondsFormat;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use messaging::{
    BatchHandler, BoxError, CancellationToken, ClientError, Consumer, ConsumerHandle, ConsumerHealth, KafkaConfig,
    Layer, Layers, Producer,
};
use sqlx::PgPool;
use tokio::sync::watch;
use utoipa_axum::router::OpenApiRouter;

use crate::chaos::{self, Faults, Identity};
use crate::config::Common;
use crate::health::{CheckResult, Health, Importance, Waiting};
use crate::{Service, db};

/// A part of the service could not be made from its configuration.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The service needs a database and `database.url` is empty.
    #[error("database.url is empty: set DATABASE_URL")]
    NoDatabase,
    /// `database.url` cannot be read.
    #[error("database.url cannot be read")]
    DatabaseUrl(#[source] sqlx::Error),
    /// A Kafka client cannot be made.
    #[error(transparent)]
    Kafka(#[from] ClientError),
}

type StartConsumer =
    Box<dyn FnOnce(&KafkaConfig, Producer, CancellationToken) -> Result<ConsumerHandle, ClientError> + Send>;

pub(crate) struct PendingConsumer {
    pub(crate) start: StartConsumer,
    /// Filled when the consumer runs; its health check reads it.
    pub(crate) health: Arc<OnceLock<watch::Receiver<ConsumerHealth>>>,
}

pub(crate) struct Task {
    pub(crate) name: &'static str,
    pub(crate) future: BoxFuture<'static, Result<(), BoxError>>,
}

/// What a service is made of. `build` fills it in and no network is touched; consumers and tasks are
/// spawned once everything of [`App::on_start`] has succeeded.
pub struct App {
    pub(crate) service: Service,
    pub(crate) instance: String,
    pub(crate) common: Common,
    pub(crate) shutdown: CancellationToken,
    pub(crate) health: Health,
    pub(crate) router: OpenApiRouter,
    pub(crate) consumers: Vec<PendingConsumer>,
    pub(crate) tasks: Vec<Task>,
    pub(crate) startup: Vec<BoxFuture<'static, Result<(), BoxError>>>,
    pub(crate) database: Option<PgPool>,
    producer: Option<Producer>,
    layers: Layers,
    /// What the chaos layer obeys; none when it is off.
    pub(crate) faults: Option<Faults>,
}

impl App {
    pub(crate) fn new(service: Service, common: Common) -> Self {
        let instance = match common.service.instance.as_str() {
            "" => format!("{}-{}", hostname(), std::process::id()),
            given => given.to_owned(),
        };
        let mut layers: Vec<Arc<dyn Layer>> = Vec::new();
        let mut faults = None;
        if common.chaos.enabled {
            let identity = Identity { service: service.name.to_owned(), instance: instance.clone() };
            let (layer, obeyed) = chaos::layer(identity);
            layers.push(layer);
            faults = Some(obeyed);
        }
        Self {
            service,
            instance,
            common,
            shutdown: CancellationToken::new(),
            health: Health::default(),
            router: OpenApiRouter::new(),
            consumers: Vec::new(),
            tasks: Vec::new(),
            startup: Vec::new(),
            database: None,
            producer: None,
            layers: layers.into(),
            faults,
        }
    }

    /// What stands between the service's messages and its handlers; none unless the configuration asks for some. The
    /// producer has the same.
    pub fn layers(&self) -> Layers {
        self.layers.clone()
    }

    /// Cancelled when the service begins to stop. Requests in flight are still answered after that, so
    /// what ends at this token is streams, consumers and periodic work.
    pub fn shutdown(&self) -> CancellationToken {
        self.shutdown.clone()
    }

    /// The name of this process among its replicas.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// How to reach Kafka.
    pub fn kafka(&self) -> &KafkaConfig {
        &self.common.kafka
    }

    /// The service's pool: one, however often it is asked for. It connects when it is first used. Adds the
    /// health check `database`.
    ///
    /// # Errors
    /// When `database.url` is empty.
    pub fn database(&mut self) -> Result<PgPool, AppError> {
        if let Some(pool) = &self.database {
            return Ok(pool.clone());
        }
        let config = &self.common.database;
        if config.url.is_empty() {
            return Err(AppError::NoDatabase);
        }
        let application = format!("{}/{}", self.service.name, self.instance);
        let pool = db::pool(config, &application).map_err(AppError::DatabaseUrl)?;
        // A pool of its own: under load the service's pool is rightly all busy, which is no reason to take
        // the service out of rotation.
        let probe = db::probe_pool(config, &application).map_err(AppError::DatabaseUrl)?;
        self.health.register("database", Importance::Required, move || db::probe(probe.clone()));
        self.database = Some(pool.clone());
        Ok(pool)
    }

    /// The service's producer: one, however often it is asked for.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn producer(&mut self) -> Result<Producer, AppError> {
        if let Some(producer) = &self.producer {
            return Ok(producer.clone());
        }
        let producer = Producer::new(&self.common.kafka, self.service.name)?.with_layers(self.layers());
        self.producer = Some(producer.clone());
        Ok(producer)
    }

    /// A consumer the service cannot do its work without: while it is down, `/readyz` is 503. Adds the
    /// health check `consumer <group>`.
    pub fn consumer<H: BatchHandler>(&mut self, consumer: Consumer<H>) {
        self.add_consumer(consumer.group(), Importance::Required, || consumer);
    }

    /// Like [`App::consumer`], for one whose topics are known only once everything of [`App::on_start`] has
    /// succeeded; `make` is called then.
    pub fn late_consumer<H: BatchHandler>(
        &mut self,
        group: &'static str,
        make: impl FnOnce() -> Consumer<H> + Send + 'static,
    ) {
        self.add_consumer(group, Importance::Required, make);
    }

    /// A consumer whose loss leaves the service's API useful: `/readyz?verbose` shows it, and that is all.
    pub fn background_consumer<H: BatchHandler>(&mut self, consumer: Consumer<H>) {
        self.add_consumer(consumer.group(), Importance::Optional, || consumer);
    }

    fn add_consumer<H: BatchHandler>(
        &mut self,
        group: &'static str,
        importance: Importance,
        make: impl FnOnce() -> Consumer<H> + Send + 'static,
    ) {
        let health: Arc<OnceLock<watch::Receiver<ConsumerHealth>>> = Arc::default();
        let name = format!("consumer {group}");
        let watched = health.clone();
        let waits = health.clone();
        self.health.register_waiting(
            &name,
            importance,
            move || std::future::ready(consumer_state(watched.get())),
            move || match waits.get().map(|health| health.borrow().clone()) {
                Some(ConsumerHealth::Waiting(wait)) => Some(Waiting { wait, lag: messaging::lag(group) }),
                _ => None,
            },
        );
        let start: StartConsumer = Box::new(move |config, producer, shutdown| make().spawn(config, producer, shutdown));
        self.consumers.push(PendingConsumer { start, health });
    }

    /// Work beside requests and messages, spawned when serving starts. An error or a panic stops the
    /// service, which exits 1. Periodic work ends at [`App::shutdown`]; a task that requests depend on, such as
    /// a batcher, ends when its channel is closed, which happens after the last request was answered.
    pub fn task(&mut self, name: &'static str, future: impl Future<Output = Result<(), BoxError>> + Send + 'static) {
        self.tasks.push(Task { name, future: future.boxed() });
    }

    /// Work that must succeed before the service is ready, in the order given; until then only health and
    /// metrics are served. An error ends the process with exit code 1;
    /// [`db::until_available`] waits for a database that is still starting.
    pub fn on_start(&mut self, future: impl Future<Output = Result<(), BoxError>> + Send + 'static) {
        self.startup.push(future.boxed());
    }

    /// Adds routes, with their state already set.
    pub fn routes(&mut self, router: OpenApiRouter) {
        let existing = std::mem::take(&mut self.router);
        self.router = existing.merge(router);
    }

    /// Adds a dependency to `/readyz`. The check gives a detail for people; it is bounded and cached.
    pub fn health_check<F, Fut>(&mut self, name: &str, importance: Importance, check: F)
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = CheckResult> + Send + 'static,
    {
        self.health.register(name, importance, check);
    }
}

fn consumer_state(health: Option<&watch::Receiver<ConsumerHealth>>) -> CheckResult {
    match health.map(|health| health.borrow().clone()) {
        None => Err("not started".to_owned()),
        Some(ConsumerHealth::Joining) => Err("joining its group".to_owned()),
        Some(ConsumerHealth::Consuming { partitions }) => Ok(format!("{partitions} partitions")),
        Some(ConsumerHealth::Waiting(wait)) => {
            let since = wait.since.to_rfc3339_opts(SecondsFormat::Secs, true);
            Err(format!("waiting since {since}: {}", wait.cause))
        }
        Some(ConsumerHealth::Stopped) => Err("stopped".to_owned()),
    }
}

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}
