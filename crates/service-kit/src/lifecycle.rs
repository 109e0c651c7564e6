//! The life of a service behind its listener: start, work, drain.

use std::time::Duration;

use axum::Router;
use futures_util::future::BoxFuture;
use messaging::{BoxError, CancellationToken, ConsumerHandle, Producer};
use sqlx::PgPool;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use utoipa::openapi::{Info, OpenApi};
use utoipa_axum::router::OpenApiRouter;

use crate::app::{App, AppError, PendingConsumer, Task};
use crate::chaos::{self, Faults};
use crate::config::Common;
use crate::health::Health;
use crate::http::{self, Server};
use crate::problem::chain;
use crate::tasks::{Tasks, WorkFailed};
use crate::{Service, VERSION};

/// Time kept back from the shutdown's deadline to close connections and flush traces.
const CLOSING: Duration = Duration::from_secs(1);

/// A service that obeys faults does not wait longer for those that were announced before it started.
const FAULTS_KNOWN_WITHIN: Duration = Duration::from_secs(5);

/// How a service ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was asked to stop, and everything was drained.
    Stopped,
    /// It could not start, a task failed, or something was not drained in time. The log says what.
    Failed,
}

pub(crate) struct Lifecycle {
    common: Common,
    health: Health,
    shutdown: CancellationToken,
    router: Router,
    startup: Vec<BoxFuture<'static, Result<(), BoxError>>>,
    consumers: Vec<PendingConsumer>,
    producer: Option<Producer>,
    faults: Option<Faults>,
    pending: Vec<Task>,
    tasks: Tasks,
    database: Option<PgPool>,
}

/// The OpenAPI document of a service, and its routes.
pub(crate) fn describe(service: &Service, router: OpenApiRouter) -> (Router, OpenApi) {
    let (router, mut openapi) = router.split_for_parts();
    openapi.info = Info::new(service.name, VERSION);
    (router, openapi)
}

impl Lifecycle {
    pub(crate) fn new(mut app: App) -> Result<Self, AppError> {
        let producer = if app.consumers.is_empty() { None } else { Some(app.producer()?) };
        let (routes, openapi) = describe(&app.service, app.router);
        let ops = http::ops(app.health.clone(), openapi);
        Ok(Self {
            router: http::router(routes, ops, &app.common.http, &app.health),
            common: app.common,
            health: app.health,
            shutdown: app.shutdown,
            startup: app.startup,
            consumers: app.consumers,
            producer,
            faults: app.faults,
            pending: app.tasks,
            tasks: Tasks::default(),
            database: app.database,
        })
    }

    pub(crate) async fn run(mut self, server: Server) -> Outcome {
        let close = CancellationToken::new();
        let abort = CancellationToken::new();
        let router = std::mem::take(&mut self.router);
        let listening = tokio::spawn(server.serve(router, close.clone(), abort.clone()));

        let worked = self.work().await;
        self.shutdown.cancel();
        let drained = self.drain(listening, &close).await;
        abort.cancel();

        match worked.and(drained) {
            Ok(()) => Outcome::Stopped,
            Err(WorkFailed) => Outcome::Failed,
        }
    }

    /// Starts everything and returns when the service is to stop, or cannot go on.
    async fn work(&mut self) -> Result<(), WorkFailed> {
        match self.start().await {
            Ok(true) => {
                self.health.started();
                tracing::info!("started");
                self.tasks.watch(&self.shutdown).await
            }
            Ok(false) => Ok(()),
            Err(error) => {
                tracing::error!(error = chain(&*error), "the service cannot start");
                Err(WorkFailed)
            }
        }
    }

    /// False when the service was told to stop before it had started.
    async fn start(&mut self) -> Result<bool, BoxError> {
        for step in self.startup.drain(..) {
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return Ok(false),
                result = step => result?,
            }
        }
        if let Some(faults) = self.faults.take() {
            let (mut known, obeying) = chaos::obey(&self.common.kafka, faults, self.shutdown.clone())?;
            self.tasks.spawn("faults".to_owned(), async move { Ok(obeying.await?) });
            tracing::warn!("chaos is enabled: this process obeys the faults on its topic");
            // The first message is hit already by what was announced before.
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return Ok(false),
                read = timeout(FAULTS_KNOWN_WITHIN, known.wait_for(|known| *known)) => if !matches!(read, Ok(Ok(_))) {
                    tracing::warn!("the faults in force are not known yet: the service starts without them");
                },
            }
        }
        for task in self.pending.drain(..) {
            self.tasks.spawn(task.name.to_owned(), task.future);
        }
        if let Some(producer) = &self.producer {
            for consumer in self.consumers.drain(..) {
                let handle = (consumer.start)(&self.common.kafka, producer.clone(), self.shutdown.clone())?;
                let name = format!("consumer {}", handle.group);
                // Nobody else fills it: the health check only reads.
                let _ = consumer.health.set(handle.health.clone());
                self.tasks.spawn(name, stopped(handle, self.shutdown.clone()));
            }
        }
        Ok(true)
    }

    /// Not ready, then no new connections, then nothing in flight. What is left at the deadline is reported,
    /// for the caller to cut off.
    async fn drain(&mut self, listening: JoinHandle<()>, close: &CancellationToken) -> Result<(), WorkFailed> {
        let began = Instant::now();
        let deadline = began + self.common.shutdown.deadline().saturating_sub(CLOSING);
        self.health.drain();
        tracing::info!("draining");
        sleep(self.common.shutdown.delay()).await;
        close.cancel();

        let drained = timeout_at(deadline, async {
            if let Err(error) = listening.await {
                tracing::error!(%error, "the listener ended abnormally");
            }
            // The routes are gone, and with them the senders of the tasks that they fed.
            self.tasks.finish().await
        })
        .await;
        let Ok(result) = drained else {
            tracing::error!(tasks = ?self.tasks.names(), "not drained in time: what is left is cut off");
            return Err(WorkFailed);
        };
        if let Some(pool) = &self.database
            && timeout_at(deadline, pool.close()).await.is_err()
        {
            tracing::warn!("database connections were still in use");
        }
        tracing::info!(seconds = began.elapsed().as_secs_f64(), "drained");
        result
    }
}

async fn stopped(handle: ConsumerHandle, shutdown: CancellationToken) -> Result<(), BoxError> {
    handle.stopped.await?;
    if shutdown.is_cancelled() { Ok(()) } else { Err("it left its group although nobody asked it to".into()) }
}
