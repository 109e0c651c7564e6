//! One proxy: its port, its toxics, and the connections through it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use service_kit::CancellationToken;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::draw::Draw;
use crate::error::ApiError;
use crate::link::Link;
use crate::listen;
use crate::metrics::{Connections, Traffic};
use crate::model::{Direction, NewProxy, NewToxic, ProxyChanges, ProxyView, Toxic, ToxicChanges, ToxicView, views};

/// Pause after a failed accept: mostly the process is out of file descriptors, which takes a moment to mend.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What holds for all proxies of the process.
#[derive(Clone)]
pub(crate) struct Limits {
    pub(crate) seed: u64,
    pub(crate) allow_remote: bool,
    pub(crate) latency_buffer: usize,
    /// One permit for each open connection.
    pub(crate) connections: Arc<Semaphore>,
    pub(crate) connections_per_proxy: usize,
    pub(crate) connect_timeout: Duration,
}

/// A proxy.
pub(crate) struct Proxy {
    name: String,
    seed: Option<u64>,
    limits: Limits,
    /// One permit for each of its open connections.
    connections: Arc<Semaphore>,
    /// Connections see each change. The lock inside is held for no longer than the change takes.
    toxics: watch::Sender<Arc<[Arc<Toxic>]>>,
    next_id: AtomicU64,
    /// Connections so far: the number of the next one.
    accepted: AtomicU64,
    /// Held while the port opens or closes, so that a change of toxics never waits for it.
    port: Mutex<Port>,
}

struct Port {
    listen: String,
    upstream: String,
    running: Option<Running>,
    /// The proxy was removed or replaced: whoever still has it cannot open its port again.
    retired: bool,
}

/// An open port.
struct Running {
    stop: CancellationToken,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// The proxy that `new` describes, with its port still closed.
    ///
    /// # Errors
    /// When a field is missing or wrong. Its `listen` is resolved and stays so.
    pub(crate) async fn new(new: NewProxy, limits: Limits) -> Result<Self, ApiError> {
        let listen = listen::resolve(&new.listen, limits.allow_remote).await?.to_string();
        let connections = Arc::new(Semaphore::new(limits.connections_per_proxy.min(Semaphore::MAX_PERMITS)));
        let proxy = Self {
            name: new.name,
            seed: new.seed,
            limits,
            connections,
            toxics: watch::Sender::new(Arc::default()),
            next_id: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            port: Mutex::new(Port { listen, upstream: new.upstream, running: None, retired: false }),
        };
        for toxic in new.toxics {
            proxy.add_toxic(toxic)?;
        }
        Ok(proxy)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Opens the port; does nothing if it is open.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(crate) async fn start(self: &Arc<Self>) -> Result<(), ApiError> {
        let mut port = self.port.lock().await;
        self.open(&mut port).await
    }

    /// Closes the port and every connection, and waits until they are closed. Tells whether it was open.
    pub(crate) async fn close(&self) -> bool {
        let mut port = self.port.lock().await;
        let was_open = port.running.is_some();
        close(&mut port).await;
        was_open
    }

    /// Closes the port and every connection for good, and waits until they are closed.
    pub(crate) async fn retire(&self) {
        let mut port = self.port.lock().await;
        port.retired = true;
        close(&mut port).await;
    }

    /// Changes addresses, or opens or closes the port. A changed address closes every connection.
    ///
    /// # Errors
    /// When an address is wrong, or the port cannot be opened: it is closed then.
    pub(crate) async fn change(self: &Arc<Self>, changes: ProxyChanges) -> Result<(), ApiError> {
        // Before the lock: a name server may take its time.
        let listen = match &changes.listen {
            Some(listen) => Some(listen::resolve(listen, self.limits.allow_remote).await?.to_string()),
            None => None,
        };
        let mut port = self.port.lock().await;
        let enabled = changes.enabled.unwrap_or(port.running.is_some());
        let listen = listen.unwrap_or_else(|| port.listen.clone());
        let upstream = changes.upstream.unwrap_or_else(|| port.upstream.clone());
        if listen != port.listen || upstream != port.upstream {
            close(&mut port).await;
            (port.listen, port.upstream) = (listen, upstream);
        }
        if enabled {
            self.open(&mut port).await
        } else {
            close(&mut port).await;
            Ok(())
        }
    }

    /// Whether `new` has other addresses.
    pub(crate) async fn differs(&self, new: &Self) -> bool {
        let (port, new) = (self.port.lock().await, new.port.lock().await);
        port.listen != new.listen || port.upstream != new.upstream
    }

    pub(crate) async fn view(&self) -> Result<ProxyView, ApiError> {
        let port = self.port.lock().await;
        Ok(ProxyView {
            name: self.name.clone(),
            listen: port.listen.clone(),
            upstream: port.upstream.clone(),
            enabled: port.running.is_some(),
            toxics: self.toxics()?,
            seed: self.seed,
        })
    }

    pub(crate) fn toxics(&self) -> Result<Vec<ToxicView>, ApiError> {
        views(&self.toxics.borrow())
    }

    pub(crate) fn toxic(&self, name: &str) -> Result<ToxicView, ApiError> {
        self.toxics.borrow().iter().find(|toxic| toxic.name == name).ok_or(ApiError::NoToxic)?.view()
    }

    /// Puts a toxic behind the others, on open connections too.
    ///
    /// # Errors
    /// When it is wrong, or there is one of its name.
    pub(crate) fn add_toxic(&self, new: NewToxic) -> Result<ToxicView, ApiError> {
        let toxic = Arc::new(Toxic::new(new, &self.name, self.next_id.fetch_add(1, Ordering::Relaxed))?);
        self.edit(|toxics| {
            if toxics.iter().any(|other| other.name == toxic.name) {
                return Err(ApiError::ToxicExists);
            }
            toxics.push(toxic.clone());
            toxic.view()
        })
    }

    /// Changes a toxic where it is.
    ///
    /// # Errors
    /// When there is none of this name, or a value has a wrong type.
    pub(crate) fn change_toxic(&self, name: &str, changes: &ToxicChanges) -> Result<ToxicView, ApiError> {
        self.edit(|toxics| {
            let toxic = toxics.iter_mut().find(|toxic| toxic.name == name).ok_or(ApiError::NoToxic)?;
            *toxic = Arc::new(toxic.with(changes)?);
            toxic.view()
        })
    }

    /// Takes a toxic away, from open connections too.
    ///
    /// # Errors
    /// When there is none of this name.
    pub(crate) fn remove_toxic(&self, name: &str) -> Result<(), ApiError> {
        self.edit(|toxics| {
            let at = toxics.iter().position(|toxic| toxic.name == name).ok_or(ApiError::NoToxic)?;
            toxics.remove(at);
            Ok(())
        })
    }

    pub(crate) fn remove_toxics(&self) {
        self.toxics.send_replace(Arc::default());
    }

    /// One change at a time, seen by every connection if it succeeds.
    fn edit<T>(&self, change: impl FnOnce(&mut Vec<Arc<Toxic>>) -> Result<T, ApiError>) -> Result<T, ApiError> {
        let mut result = Err(ApiError::NoToxic);
        self.toxics.send_if_modified(|toxics| {
            let mut list = toxics.to_vec();
            result = change(&mut list);
            if result.is_ok() {
                *toxics = list.into();
            }
            result.is_ok()
        });
        result
    }

    async fn open(self: &Arc<Self>, port: &mut Port) -> Result<(), ApiError> {
        if port.retired {
            return Err(ApiError::NoProxy);
        }
        if port.running.is_some() {
            return Ok(());
        }
        let failed = |source| ApiError::Listen { address: port.listen.clone(), source };
        let listener = TcpListener::bind(&port.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        port.listen = address.to_string();
        let stop = CancellationToken::new();
        let traffic = |direction| Traffic::of(direction, &self.name, &port.listen, &port.upstream);
        let accepting = Accepting {
            proxy: self.clone(),
            upstream: port.upstream.clone(),
            listener,
            stop: stop.clone(),
            metrics: Connections::of(&self.name),
            to_upstream: traffic(Direction::Upstream),
            to_client: traffic(Direction::Downstream),
        };
        tracing::info!(proxy = self.name, listen = port.listen, upstream = port.upstream, "proxy listens");
        port.running = Some(Running { stop, accepting: tokio::spawn(accepting.run()) });
        Ok(())
    }

    fn next_connection(&self) -> Draw {
        let number = self.accepted.fetch_add(1, Ordering::Relaxed);
        Draw::new(self.seed.unwrap_or(self.limits.seed), &self.name, number)
    }
}

async fn close(port: &mut Port) {
    let Some(running) = port.running.take() else { return };
    running.stop.cancel();
    if let Err(error) = running.accepting.await {
        tracing::error!(%error, "a proxy ended abnormally");
    }
    tracing::info!(listen = port.listen, "proxy is closed");
}

/// The work behind an open port.
struct Accepting {
    proxy: Arc<Proxy>,
    upstream: String,
    listener: TcpListener,
    stop: CancellationToken,
    metrics: Connections,
    to_upstream: Traffic,
    to_client: Traffic,
}

impl Accepting {
    /// Serves connections until the port is closed, and waits until all of them are.
    async fn run(self) {
        let connections = TaskTracker::new();
        while let Some(accepted) = self.stop.run_until_cancelled(self.accept()).await {
            let Some((client, permits)) = accepted else { continue };
            let (link, upstream, metrics) = (self.link(), self.upstream.clone(), self.metrics.clone());
            let (stop, patience) = (self.stop.clone(), self.proxy.limits.connect_timeout);
            connections.spawn(async move {
                let open = metrics.opened();
                // Boxed: with it inside, the task's size would be that of its longest state from the start.
                let work = Box::pin(serve(link, client, upstream, patience, &metrics));
                stop.run_until_cancelled(work).await;
                drop((open, permits));
            });
        }
        drop(self.listener);
        connections.close();
        connections.wait().await;
    }

    /// The next client, once there is room for it. A proxy without clients takes none of the room of all, and one that is
    /// full neither.
    async fn accept(&self) -> Option<(TcpStream, [OwnedSemaphorePermit; 2])> {
        match self.listener.accept().await {
            Ok((client, _)) => {
                // Only closing a semaphore makes this fail, and nobody does.
                let own = self.proxy.connections.clone().acquire_owned().await.ok()?;
                let shared = self.proxy.limits.connections.clone().acquire_owned().await.ok()?;
                Some((client, [own, shared]))
            }
            Err(error) => {
                tracing::warn!(%error, proxy = self.proxy.name, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                None
            }
        }
    }

    fn link(&self) -> Link {
        Link {
            toxics: self.proxy.toxics.subscribe(),
            draw: self.proxy.next_connection(),
            latency_buffer: self.proxy.limits.latency_buffer,
            to_upstream: self.to_upstream.clone(),
            to_client: self.to_client.clone(),
        }
    }
}

/// One connection, from its first byte to its last. A client whose upstream cannot be reached is closed; one whose
/// upstream took the connection and reset it at once is reset.
async fn serve(link: Link, client: TcpStream, upstream: String, patience: Duration, metrics: &Connections) {
    let connected = timeout(patience, TcpStream::connect(&upstream)).await;
    let server = match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(server) => server,
        Err(error) => {
            metrics.unreachable.inc();
            tracing::warn!(%error, upstream, "the upstream cannot be reached: the client is closed");
            if error.kind() == io::ErrorKind::ConnectionReset
                && let Err(error) = client.set_zero_linger()
            {
                tracing::debug!(%error, "a connection cannot be reset: it is closed");
            }
            return;
        }
    };
    for stream in [&client, &server] {
        // A chunk that was read leaves as it is: waiting for more would be a latency nobody asked for.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY refused");
        }
    }
    link.run(client, server).await;
}
