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
const INTERVAL: Duration = Duration::from_millis(200);
/// For the audit: how long ends may take to reach every service.
const SETTLE: Duration = Duration::from_secs(30);

/// A stack that ends with this process, whatever ends it.
pub struct OwnStack {
    data: DataDir,
    supervisor: Child,
}

impl OwnStack {
    /// Starts one in `data`, with chaos enabled and a failpoint after each commit that is not armed yet.
    ///
    /// # Errors
    /// When a stack runs there, or does not get ready.
    pub async fn start(data: DataDir) -> anyhow::Result<Self> {
        data.create()?;
        if Lock::is_taken(&data)? {
            bail!("a stack runs in {}: certify starts one of its own, in a folder of its own", data.root().display());
        }
        let fired = fired(&data);
        std::fs::write(&fired, "")?;
        let log = data.log("certify-up");
        let up = Program::new(std::env::current_exe()?, &log)
            .argument("up")
            .argument("--data-dir")
            .argument(data.root())
            .variable("CHAOS_ENABLED", "true")
            .variable("FAILPOINT", "after-commit")
            .variable("FAILPOINT_FIRED", fired);
        let mut stack = Self { supervisor: up.spawn().await?, data };
        let begun = Instant::now();
        while !stack.is_ready()? {
            if let Some(status) = stack.supervisor.try_wait()? {
                bail!("the stack did not start ({status}): {}", std::fs::read_to_string(&log).unwrap_or_default());
            }
            if begun.elapsed() > READY_WITHIN {
                bail!("the stack is not ready after {} s, see {}", READY_WITHIN.as_secs(), log.display());
            }
            tokio::time::sleep(INTERVAL).await;
        }
        Ok(stack)
    }

    fn is_ready(&self) -> anyhow::Result<bool> {
        let ours = |state: &State| Some(state.supervisor.pid) == self.supervisor.id();
        Ok(State::read(&self.data)?.is_some_and(|state| ours(&state) && state.stack == StackState::Ready))
    }

    /// The stack as it is certified.
    ///
    /// # Errors
    /// When it has gone down.
    pub fn stand(&self) -> anyhow::Result<Stand> {
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
        let status = tokio::time::timeout(DOWN_WITHIN, child.wait()).await;
        let status = status.map_err(|_| anyhow!("the stack in {} does not end", self.data.root().display()))??;
        if !status.success() {
            bail!("symphony down failed ({status}) in {}", self.data.root().display());
        }
        self.supervisor.wait().await?;
        Ok(())
    }
}

fn fired(data: &DataDir) -> std::path::PathBuf {
    data.run().join("failpoint.fired")
}
