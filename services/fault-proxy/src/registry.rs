//! All proxies, by name.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rand::Rng;
use service_kit::BoxError;
use tokio::sync::{RwLock, Semaphore};

use crate::ProxiesSection;
use crate::error::ApiError;
use crate::metrics;
use crate::model::{self, NewProxy, ProxyView};
use crate::proxy::{Limits, Proxy};

/// File descriptors that are kept for everything but connections: the HTTP interface must answer when all are in use.
const RESERVED: u64 = 256;

/// The proxies of this process.
pub(crate) struct Registry {
    limits: Limits,
    /// Held while a proxy is made or removed, which never waits for anything remote.
    proxies: RwLock<BTreeMap<String, Arc<Proxy>>>,
}

/// What came of a list of proxies.
pub(crate) struct Populated {
    /// Those that are there now.
    pub(crate) proxies: Vec<ProxyView>,
    /// What stopped it.
    pub(crate) error: Option<ApiError>,
}

impl Registry {
    pub(crate) fn new(config: &ProxiesSection) -> Self {
        let seed = match config.seed {
            // Kept below what TOML can write, so that it can be set again.
            0 => rand::rng().next_u64() >> 1,
            given => given,
        };
        let connections = config.max_connections.min(connections_by_descriptors());
        tracing::info!(seed, connections, "limits of all proxies");
        let limits = Limits {
            seed,
            allow_remote: config.allow_remote,
            latency_buffer: config.latency_buffer_bytes,
            connections: Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS))),
            connections_per_proxy: config.max_connections_per_proxy,
            connect_timeout: Duration::from_millis(config.connect_timeout_ms.into()),
        };
        Self { limits, proxies: RwLock::default() }
    }

    /// # Errors
    /// When there is none of this name.
    pub(crate) async fn get(&self, name: &str) -> Result<Arc<Proxy>, ApiError> {
        self.proxies.read().await.get(name).cloned().ok_or(ApiError::NoProxy)
    }

    pub(crate) async fn all(&self) -> Vec<Arc<Proxy>> {
        self.proxies.read().await.values().cloned().collect()
    }

    /// Makes a proxy; its toxics are there before its first connection.
    ///
    /// # Errors
    /// When a field is missing or wrong, there is one of its name, or its port cannot be opened: nothing is made then.
    pub(crate) async fn create(&self, new: NewProxy) -> Result<ProxyView, ApiError> {
        for (field, value) in [("name", &new.name), ("upstream", &new.upstream)] {
            if value.is_empty() {
                return Err(ApiError::MissingField(field.to_owned()));
            }
        }
        let enabled = new.enabled;
        let proxy = Arc::new(Proxy::new(new, self.limits.clone()).await?);
        let mut proxies = self.proxies.write().await;
        if proxies.contains_key(proxy.name()) {
            return Err(ApiError::ProxyExists);
        }
        if enabled {
            proxy.start().await?;
        }
        proxies.insert(proxy.name().to_owned(), proxy.clone());
        drop(proxies);
        proxy.view().await
    }

    /// Makes every proxy of the list. One of the same name and addresses stays as it is, one of the same name only is
    /// replaced. It stops at the first that fails; the one that it should have replaced goes on.
    pub(crate) async fn populate(&self, list: Vec<NewProxy>) -> Populated {
        for (number, new) in (1..).zip(&list) {
            for (field, value) in [("name", &new.name), ("upstream", &new.upstream)] {
                if value.is_empty() {
                    let error = ApiError::MissingField(format!("{field} at proxy {number}"));
                    return Populated { proxies: Vec::new(), error: Some(error) };
                }
            }
        }
        let mut proxies = Vec::new();
        for new in list {
            match self.create_or_replace(new).await {
                Ok(proxy) => proxies.push(proxy),
                Err(error) => return Populated { proxies, error: Some(error) },
            }
        }
        Populated { proxies, error: None }
    }

    async fn create_or_replace(&self, new: NewProxy) -> Result<ProxyView, ApiError> {
        let enabled = new.enabled;
        let proxy = Arc::new(Proxy::new(new, self.limits.clone()).await?);
        let mut proxies = self.proxies.write().await;
        let existing = proxies.get(proxy.name()).cloned();
        let mut was_open = false;
        if let Some(existing) = &existing {
            if !existing.differs(&proxy).await {
                return existing.view().await;
            }
            // First: both may want the same port.
            was_open = existing.close().await;
        }
        if enabled && let Err(error) = proxy.start().await {
            // Nothing has come of it, so what was there goes on.
            if let (Some(existing), true) = (existing, was_open)
                && let Err(error) = existing.start().await
            {
                tracing::error!(%error, proxy = proxy.name(), "the proxy that was to be replaced stays closed");
            }
            return Err(error);
        }
        if let Some(existing) = existing {
            existing.retire().await;
        }
        proxies.insert(proxy.name().to_owned(), proxy.clone());
        drop(proxies);
        proxy.view().await
    }

    /// Makes the proxies of a file.
    ///
    /// # Errors
    /// When it cannot be read, or one of them cannot be made.
    pub(crate) async fn populate_from(&self, file: &str) -> Result<(), BoxError> {
        let text = tokio::fs::read(file).await.map_err(|error| format!("{file}: {error}"))?;
        let list = model::read(&text).map_err(|error| format!("{file}: {error}"))?;
        match self.populate(list).await.error {
            Some(error) => Err(format!("{file}: {error}").into()),
            None => Ok(()),
        }
    }

    /// Removes a proxy and its metrics, and closes its connections.
    ///
    /// # Errors
    /// When there is none of this name.
    pub(crate) async fn remove(&self, name: &str) -> Result<(), ApiError> {
        // Until all of it is gone: the next of this name has metrics of its own.
        let mut proxies = self.proxies.write().await;
        let proxy = proxies.remove(name).ok_or(ApiError::NoProxy)?;
        proxy.retire().await;
        metrics::forget(name);
        Ok(())
    }

    /// Enables every proxy and removes every toxic.
    ///
    /// # Errors
    /// When a port cannot be opened; every toxic is gone all the same.
    pub(crate) async fn reset(&self) -> Result<(), ApiError> {
        let proxies = self.all().await;
        proxies.iter().for_each(|proxy| proxy.remove_toxics());
        for proxy in proxies {
            proxy.start().await?;
        }
        Ok(())
    }

    pub(crate) async fn stop_all(&self) {
        for proxy in self.all().await {
            proxy.retire().await;
        }
    }
}

/// How many connections, of two descriptors each, this process may have. Its limit is raised as far as it may go.
fn connections_by_descriptors() -> usize {
    let limit =
        getrlimit(Resource::RLIMIT_NOFILE).map(|(soft, hard)| match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
            Ok(()) => hard,
            Err(_) => soft,
        });
    // Without a known limit there is none to keep to.
    let limit = limit.unwrap_or(u64::MAX);
    usize::try_from(limit.saturating_sub(RESERVED) / 2).unwrap_or(usize::MAX).max(1)
}
