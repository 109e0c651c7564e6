//! The named tasks of a service, none of which ends unnoticed.

use std::collections::HashMap;
use std::future::Future;

use messaging::{BoxError, CancellationToken};
use tokio::task::{Id, JoinError, JoinSet};

use crate::problem::chain;

/// Something failed, and was logged when it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WorkFailed;

#[derive(Default)]
pub(crate) struct Tasks {
    running: JoinSet<Result<(), BoxError>>,
    names: HashMap<Id, String>,
}

impl Tasks {
    pub(crate) fn spawn(&mut self, name: String, task: impl Future<Output = Result<(), BoxError>> + Send + 'static) {
        let id = self.running.spawn(task).id();
        self.names.insert(id, name);
    }

    /// Returns at `shutdown`, or when a task fails.
    pub(crate) async fn watch(&mut self, shutdown: &CancellationToken) -> Result<(), WorkFailed> {
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                Some(ended) = self.running.join_next_with_id() => self.note(ended)?,
                // Nothing runs any more: only requests are served.
                else => {
                    shutdown.cancelled().await;
                    return Ok(());
                }
            }
        }
    }

    /// Waits for every task, also after one has failed.
    pub(crate) async fn finish(&mut self) -> Result<(), WorkFailed> {
        let mut result = Ok(());
        while let Some(ended) = self.running.join_next_with_id().await {
            result = result.and(self.note(ended));
        }
        result
    }

    /// The tasks that have not ended.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.names.values().map(String::as_str).collect()
    }

    fn note(&mut self, ended: Result<(Id, Result<(), BoxError>), JoinError>) -> Result<(), WorkFailed> {
        let (id, error) = match ended {
            Ok((id, Ok(()))) => (id, None),
            Ok((id, Err(error))) => (id, Some(chain(&*error))),
            Err(error) => (error.id(), Some(error.to_string())),
        };
        let name = self.names.remove(&id).unwrap_or_default();
        match error {
            None => {
                tracing::debug!(task = name, "task ended");
                Ok(())
            }
            Some(error) => {
                tracing::error!(task = name, error, "task failed: the service stops");
                Err(WorkFailed)
            }
        }
    }
}
