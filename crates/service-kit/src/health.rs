//! Health: named dependencies, each required or optional.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use messaging::Wait;
use serde::Serialize;
use tokio::sync::Mutex;

/// A check's detail for people, in both cases.
pub type CheckResult = Result<String, String>;

/// A check that takes longer has failed.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a result is kept, so that probes, however many, are no load.
const CACHE_FOR: Duration = Duration::from_millis(500);

/// What the loss of a dependency means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Importance {
    /// The service is not ready without it.
    Required,
    /// The service is ready without it; the report names it.
    Optional,
}

/// The registry of a service's dependencies and the phase the service is in.
#[derive(Clone, Default)]
pub struct Health {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    started: AtomicBool,
    draining: AtomicBool,
    dependencies: RwLock<Vec<Arc<Dependency>>>,
}

struct Dependency {
    name: String,
    importance: Importance,
    check: Box<dyn Fn() -> BoxFuture<'static, CheckResult> + Send + Sync>,
    /// What it waits for, if that can be said.
    wait: Box<dyn Fn() -> Option<Waiting> + Send + Sync>,
    last: Mutex<Option<(Instant, CheckResult)>>,
}

/// The state of a service or of a dependency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The service may get requests.
    Ready,
    /// The dependency answers.
    Up,
    /// The dependency does not answer.
    Down,
    /// `on_start` is not through.
    Starting,
    /// The service is stopping.
    Draining,
    /// A required dependency is down.
    Unready,
}

/// What `/readyz` says.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The state of the service.
    pub state: State,
    /// The state of each dependency.
    pub dependencies: Vec<DependencyReport>,
}

/// What `/readyz?verbose` says of one dependency.
#[derive(Debug, Clone, Serialize)]
pub struct DependencyReport {
    /// `database`, `consumer payment`.
    pub name: String,
    /// Whether its loss makes the service unready.
    pub required: bool,
    /// [`State::Up`] or [`State::Down`].
    pub state: State,
    /// For people.
    pub detail: String,
    /// Of a consumer whose batch waits: for what, since when, after how many attempts, and with how much behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
}

/// A consumer's wait, as `/readyz?verbose` tells it.
#[derive(Debug, Clone, Serialize)]
pub struct Waiting {
    /// For what, and since when.
    #[serde(flatten)]
    pub wait: Wait,
    /// Messages in its partitions that are not processed; measured every 5 s.
    pub lag: i64,
}

impl Health {
    /// Adds a dependency.
    pub fn register<F, Fut>(&self, name: &str, importance: Importance, check: F)
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = CheckResult> + Send + 'static,
    {
        self.register_waiting(name, importance, check, || None);
    }

    /// Adds a dependency that can wait; `wait` says for what.
    pub(crate) fn register_waiting<F, Fut>(
        &self,
        name: &str,
        importance: Importance,
        check: F,
        wait: impl Fn() -> Option<Waiting> + Send + Sync + 'static,
    ) where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = CheckResult> + Send + 'static,
    {
        let dependency = Dependency {
            name: name.to_owned(),
            importance,
            check: Box::new(move || check().boxed()),
            wait: Box::new(wait),
            last: Mutex::new(None),
        };
        self.inner.dependencies.write().unwrap_or_else(PoisonError::into_inner).push(Arc::new(dependency));
    }

    pub(crate) fn started(&self) {
        self.inner.started.store(true, Ordering::Release);
    }

    pub(crate) fn is_started(&self) -> bool {
        self.inner.started.load(Ordering::Acquire)
    }

    pub(crate) fn drain(&self) {
        self.inner.draining.store(true, Ordering::Release);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.inner.draining.load(Ordering::Acquire)
    }

    /// Asks every dependency, all at once, each for at most a second.
    pub async fn report(&self) -> Report {
        let dependencies: Vec<_> = self.inner.dependencies.read().unwrap_or_else(PoisonError::into_inner).clone();
        let dependencies = join_all(dependencies.iter().map(|dependency| dependency.report())).await;
        let lost = dependencies.iter().any(|d| d.required && d.state == State::Down);
        let state = if self.is_draining() {
            State::Draining
        } else if !self.is_started() {
            State::Starting
        } else if lost {
            State::Unready
        } else {
            State::Ready
        };
        Report { state, dependencies }
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").finish_non_exhaustive()
    }
}

impl Dependency {
    async fn report(&self) -> DependencyReport {
        // The lock is held during the check: probes that come meanwhile share its result.
        let mut last = self.last.lock().await;
        let result = match &*last {
            Some((at, result)) if at.elapsed() < CACHE_FOR => result.clone(),
            _ => {
                let result = tokio::time::timeout(CHECK_TIMEOUT, (self.check)())
                    .await
                    .unwrap_or_else(|_| Err(format!("no answer within {CHECK_TIMEOUT:?}")));
                *last = Some((Instant::now(), result.clone()));
                result
            }
        };
        let (state, detail) = match result {
            Ok(detail) => (State::Up, detail),
            Err(detail) => (State::Down, detail),
        };
        let (name, required) = (self.name.clone(), self.importance == Importance::Required);
        DependencyReport { name, required, state, detail, waiting: (self.wait)() }
    }
}

impl Report {
    /// Names what keeps the service from being ready.
    pub(crate) fn summary(&self) -> String {
        match self.state {
            State::Starting => "the service is starting".to_owned(),
            State::Draining => "the service is stopping".to_owned(),
            _ => self
                .dependencies
                .iter()
                .filter(|d| d.required && d.state == State::Down)
                .map(|d| format!("{}: {}", d.name, d.detail))
                .collect::<Vec<_>>()
                .join("; "),
        }
    }
}
