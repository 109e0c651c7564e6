//! The running stack that cells are played on.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use messaging::admin::Observer;
use messaging::{Producer, Record};
use serde_json::Value;
use stack::DataDir;
use stack::supervisor::control::{Client, Request};
use stack::supervisor::state::Phase;
use uuid::Uuid;

use super::chaos::Chaos;
use super::journal::Journal;
use crate::api::Api;
use crate::audit::Target;

/// Between two looks at something that is waited for.
const INTERVAL: Duration = Duration::from_millis(200);

/// Where the stack is. Its services must run with `CHAOS_ENABLED=true`, and nobody else may use it meanwhile.
#[derive(Clone, Debug)]
pub struct Stand {
    /// The services' interfaces.
    pub api: Api,
    /// The servers.
    pub target: Target,
    /// Without it no process can be killed, and the cells that need that are void.
    pub supervised: Option<Supervised>,
    /// Whether the audit must be clean at the end.
    pub audited: bool,
}

/// A stack whose supervisor starts again what dies.
#[derive(Clone, Debug)]
pub struct Supervised {
    /// Its data directory.
    pub data: DataDir,
    /// `FAILPOINT_FIRED` of its services, which run with `FAILPOINT=after-commit`.
    pub fired: PathBuf,
}

impl Supervised {
    /// Sends SIGKILL.
    pub(super) async fn kill(&self, service: &str) -> anyhow::Result<()> {
        self.ask(&Request::Kill { name: service.to_owned(), signal: nix::libc::SIGKILL }).await.map(drop)
    }

    /// Stops the service as asked and starts it; returns when it is ready.
    pub(super) async fn restart(&self, service: &str) -> anyhow::Result<()> {
        self.ask(&Request::Restart { name: service.to_owned() }).await.map(drop)
    }

    /// The process of `service`, if it is ready.
    pub(super) async fn pid(&self, service: &str) -> anyhow::Result<Option<u32>> {
        let state = self.ask(&Request::Status).await?;
        let ready = state.components.into_iter().find(|found| found.name == service && found.state == Phase::Ready);
        Ok(ready.and_then(|component| component.pid))
    }

    async fn ask(&self, request: &Request) -> anyhow::Result<stack::supervisor::state::State> {
        let client = Client::send(&self.data, request).await?.ok_or_else(|| anyhow!("the supervisor is gone"))?;
        Ok(client.finish(|_| ()).await?)
    }
}

/// What all cells share.
pub(super) struct Stage {
    pub(super) stand: Stand,
    /// The platform's own: a copy has to come to the partition of its original.
    pub(super) producer: Producer,
    pub(super) chaos: Chaos,
    pub(super) journal: Journal,
    /// Tells how far consumer groups have come.
    pub(super) observer: Observer,
}

impl Stage {
    /// The saga as the orchestrator shows it; `None` while it cannot.
    pub(super) async fn saga(&self, id: Uuid) -> Option<Value> {
        self.stand.api.get("orchestrator", &format!("/api/sagas/{id}"), &[]).await.ok()
    }

    /// Waits until the saga has ended or is parked, and gives its state.
    pub(super) async fn rests(&self, id: Uuid, within: Duration) -> Option<String> {
        until(within, async || {
            let saga = self.saga(id).await?;
            let state = saga["state"].as_str()?;
            matches!(state, "COMPLETED" | "COMPENSATED" | "PARKED").then(|| state.to_owned())
        })
        .await
    }

    /// Waits until `group` has committed the offset of `record`: by then whatever was read with it is answered, too.
    pub(super) async fn is_committed(&self, group: &str, record: &Record, within: Duration) -> bool {
        let committed = async || {
            let offsets = self.observer.committed(group, &record.topic).await.ok()?;
            offsets.get(&record.partition).is_some_and(|next| *next > record.offset).then_some(())
        };
        until(within, committed).await.is_some()
    }

    /// Puts a copy of the first message of `saga` on `topic` at the end of that topic.
    pub(super) async fn send_again(&self, topic: &str, saga: Uuid) -> anyhow::Result<()> {
        let first = self.journal.on(topic, saga).into_iter().next();
        let first = first.with_context(|| format!("nothing of saga {saga} is on {topic}"))?;
        self.producer.send(&first).await?;
        Ok(())
    }
}

/// Looks again and again until there is something, or the time is up.
pub(super) async fn until<T>(within: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        let found = look().await;
        if found.is_some() || start.elapsed() >= within {
            return found;
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
