//! A stack of its own: faults are aimed at it and processes killed in it, so it is nobody else's.

use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use stack::DataDir;
use stack::spawn::Program;
use stack::supervisor::Lock;
use stack::supervisor::state::{StackState, State};
use tokio::process::Child;

use super::stage::{Stand, Supervised};
use crate::api::Api;
use crate::audit::Target;

/// The first start of a machine fetches the servers.
const READY_WITHIN: Duration = Duration::from_secs(600);
const DOWN_WITHIN: Duration = Duration::from_secs(120);
/// From then until the process of its supervisor is gone.
const GONE_WITHIN: Duration = Duration::from_secs(15);
const INTERVAL: Duration = Duration::from_millis(200);
/// For the audit: how long ends may take to reach every service.
const SETTLE: Duration = Duration::from_secs(30);

/// A stack that ends with this process, whatever ends it.
pub struct OwnStack {
    data: DataDir,
    supervisor: Child,
}

impl OwnStack {
    /// Begins to start one in `data`, with chaos enabled and a failpoint after each commit that is not armed yet.
    ///
    /// # Errors
    /// When a stack runs there.
    pub async fn spawn(data: DataDir) -> anyhow::Result<Self> {
        data.create()?;
        if Lock::is_taken(&data)? {
            bail!("a stack runs in {}: certify starts one of its own, in a folder of its own", data.root().display());
        }
        let fired = fired(&data);
        std::fs::write(&fired, "")?;
        let up = Program::new(std::env::current_exe()?, log(&data))
            .argument("up")
            .argument("--data-dir")
            .argument(data.root())
            .variable("CHAOS_ENABLED", "true")
            .variable("FAILPOINT", "after-commit")
            .variable("FAILPOINT_FIRED", fired);
        Ok(Self { supervisor: up.spawn().await?, data })
    }

    /// Waits until all of it is ready, and gives it as it is certified.
    ///
    /// # Errors
    /// When it does not get ready.
    pub async fn ready(&mut self) -> anyhow::Result<Stand> {
        let begun = Instant::now();
        while !self.is_ready()? {
            let log = log(&self.data);
            if let Some(status) = self.supervisor.try_wait()? {
                bail!("the stack did not start ({status}): {}", std::fs::read_to_string(&log).unwrap_or_default());
            }
            if begun.elapsed() > READY_WITHIN {
                bail!("the stack is not ready after {} s, see {}", READY_WITHIN.as_secs(), log.display());
            }
            tokio::time::sleep(INTERVAL).await;
        }
        self.stand()
    }

    fn is_ready(&self) -> anyhow::Result<bool> {
        let ours = |state: &State| Some(state.supervisor.pid) == self.supervisor.id();
        Ok(State::read(&self.data)?.is_some_and(|state| ours(&state) && state.stack == StackState::Ready))
    }

    fn stand(&self) -> anyhow::Result<Stand> {
        let api = Api::new(self.data.state_file())?;
        let target = Target {
            postgres: api.address("postgres")?,
            database_prefix: String::new(),
            kafka: api.address("kafka")?,
            topic_prefix: String::new(),
            settle_within: SETTLE,
            ready_since: None,
        };
        let supervised = Supervised { data: self.data.clone(), fired: fired(&self.data) };
        Ok(Stand { api, target, supervised: Some(supervised), audited: true })
    }

    /// Ends it, and with `wipe` removes its data.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn down(mut self, wipe: bool) -> anyhow::Result<()> {
        let mut down = Program::new(std::env::current_exe()?, self.data.log("certify-down")).argument("down");
        if wipe {
            down = down.argument("--wipe");
        }
        let mut child = down.argument("--data-dir").argument(self.data.root()).spawn().await?;
        let still_runs = |_| anyhow!("the stack in {} does not end", self.data.root().display());
        let status = tokio::time::timeout(DOWN_WITHIN, child.wait()).await.map_err(still_runs)??;
        if !status.success() {
            bail!("symphony down failed ({status}) in {}", self.data.root().display());
        }
        // One that has only just begun does not hear it.
        tokio::time::timeout(GONE_WITHIN, self.supervisor.wait()).await.map_err(still_runs)??;
        Ok(())
    }
}

fn log(data: &DataDir) -> std::path::PathBuf {
    data.log("certify-up")
}

fn fired(data: &DataDir) -> std::path::PathBuf {
    data.run().join("failpoint.fired")
}
