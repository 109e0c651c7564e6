//! The accept loop. `axum::serve` installs no timer, so a client that sends its request's head a byte a
//! minute holds a connection for ever; this one cuts it off.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::config::HttpConfig;
use crate::metrics::InProgress;

/// Longest head of a request, and the buffer of a connection. Bytes.
const MAX_HEAD: usize = 64 * 1024;

/// Pause after a failed accept: mostly the process is out of file descriptors, which takes a moment to mend.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound listener.
#[derive(Debug)]
pub(crate) struct Server {
    listener: TcpListener,
    address: SocketAddr,
    header_timeout: Duration,
    connections: Arc<Semaphore>,
}

impl Server {
    /// Binds, and tells the address in the port file if there shall be one.
    pub(crate) async fn bind(config: &HttpConfig) -> io::Result<Self> {
        let listener = TcpListener::bind((config.host.as_str(), config.port)).await?;
        let address = listener.local_addr()?;
        if !config.port_file.is_empty() {
            write_port_file(Path::new(&config.port_file), address)?;
        }
        Ok(Self {
            listener,
            address,
            header_timeout: config.header_timeout(),
            connections: Arc::new(Semaphore::new(config.max_connections)),
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `close`, then lets every request in flight finish. `abort` cuts off what is left.
    pub(crate) async fn serve(self, router: Router, close: CancellationToken, abort: CancellationToken) {
        let graceful = GracefulShutdown::new();
        loop {
            let connection = tokio::select! {
                biased;
                () = close.cancelled() => break,
                connection = self.accept() => connection,
            };
            let Some((stream, permit)) = connection else { continue };
            let connection = Connection {
                stream,
                router: router.clone(),
                header_timeout: self.header_timeout,
                watcher: graceful.watcher(),
            };
            let abort = abort.clone();
            tokio::spawn(async move {
                let open = InProgress::connection();
                tokio::select! {
                    () = abort.cancelled() => {}
                    () = connection.serve() => {}
                }
                drop((permit, open));
            });
        }
        drop(self.listener);
        drop(router);
        graceful.shutdown().await;
    }

    /// The next connection, once there is room for it. A client that went away meanwhile, or a lack of file
    /// descriptors, is none.
    async fn accept(&self) -> Option<(TcpStream, OwnedSemaphorePermit)> {
        // Only closing the semaphore makes this fail, and nobody does.
        let permit = self.connections.clone().acquire_owned().await.ok()?;
        match self.listener.accept().await {
            Ok((stream, _)) => {
                // Answers are single writes: waiting to fill a packet only delays them.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "TCP_NODELAY refused");
                }
                Some((stream, permit))
            }
            Err(error) if is_clients_fault(&error) => None,
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                None
            }
        }
    }
}

struct Connection {
    stream: TcpStream,
    router: Router,
    header_timeout: Duration,
    watcher: Watcher,
}

impl Connection {
    async fn serve(self) {
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.header_timeout)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(self.stream), TowerToHyperService::new(self.router));
        // Resets, timeouts and garbage: each is the client's, and none of them concerns anybody else.
        if let Err(error) = pin!(self.watcher.watch(connection)).await {
            tracing::debug!(%error, "connection ended");
        }
    }
}

fn is_clients_fault(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

/// Writes beside the file and renames, so that a reader finds the whole address or no file.
fn write_port_file(path: &Path, address: SocketAddr) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    std::fs::write(&beside, format!("{address}\n"))?;
    std::fs::rename(&beside, path)
}
