//! Starting a built service: in `main`, or inside a test's process.

use std::future::Future;
use std::io;
use std::net::SocketAddr;

use messaging::{BoxError, CancellationToken};
use tokio::task::JoinHandle;

use crate::app::App;
use crate::config::{self, ConfigErrors, ServiceConfig};
use crate::http::Server;
use crate::lifecycle::{Lifecycle, Outcome};
use crate::{Service, VERSION, metrics};

/// Why a service did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// `build` failed, or a part of the service cannot be made from its configuration.
    #[error("the service cannot be built")]
    Build(#[source] BoxError),
    /// The listener cannot be bound, or its port file not written.
    #[error("cannot listen on {address}")]
    Bind {
        /// As configured, `host:port`.
        address: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A service that serves.
#[derive(Debug)]
pub struct Running {
    /// Where it listens.
    pub addr: SocketAddr,
    shutdown: CancellationToken,
    finished: JoinHandle<Outcome>,
}

impl Running {
    /// Where it listens, as a URL without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Asks the service to stop and waits until everything is drained.
    pub async fn stop(self) -> Outcome {
        self.begin_stop();
        self.wait().await
    }

    /// Asks the service to stop; [`Running::wait`] tells when it has.
    pub fn begin_stop(&self) {
        self.shutdown.cancel();
    }

    /// Waits until the service has ended, by itself or because it was asked to.
    pub async fn wait(self) -> Outcome {
        match self.finished.await {
            Ok(outcome) => outcome,
            Err(error) => {
                tracing::error!(%error, "the service ended abnormally");
                Outcome::Failed
            }
        }
    }
}

/// Starts a service inside this process, for tests. Its configuration is the compiled-in defaults and
/// `overrides`, names of variables and their values; the environment of the process is not read, and
/// neither telemetry nor signal handlers are installed.
///
/// # Errors
/// See [`StartError`].
pub async fn start<C, F, Fut>(service: Service, overrides: &[(&str, &str)], build: F) -> Result<Running, StartError>
where
    C: ServiceConfig,
    F: FnOnce(C, App) -> Fut,
    Fut: Future<Output = Result<App, BoxError>>,
{
    let environment = overrides.iter().map(|(name, value)| (name.into(), value.into()));
    let config: C = config::load(&service, environment)?.config;
    let app = App::new(service, config.common().clone());
    let app = build(config, app).await.map_err(StartError::Build)?;
    serve(app).await
}

/// Binds and begins to serve; everything else happens in the task behind [`Running`].
pub(crate) async fn serve(app: App) -> Result<Running, StartError> {
    let http = &app.common.http;
    let server = Server::bind(http)
        .await
        .map_err(|source| StartError::Bind { address: format!("{}:{}", http.host, http.port), source })?;
    let addr = server.address();
    tracing::info!(
        service = app.service.name,
        instance = app.instance,
        version = VERSION,
        http.address = %addr,
        "listening"
    );
    metrics::register_build_info(app.service.name);
    let shutdown = app.shutdown();
    let lifecycle = Lifecycle::new(app).map_err(|error| StartError::Build(error.into()))?;
    Ok(Running { addr, shutdown, finished: tokio::spawn(lifecycle.run(server)) })
}
