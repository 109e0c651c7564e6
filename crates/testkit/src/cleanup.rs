//! Removing what a test made.

use std::collections::BTreeSet;
use std::time::Duration;

use messaging::admin;
use stack::provision::Names;

use crate::servers::Servers;
use crate::{connector, databases};

/// The servers are thrown away with the run, so cleaning may give up; it only keeps them small meanwhile.
const PATIENCE: Duration = Duration::from_secs(20);

/// What an environment has on the shared servers. Topics with their prefix, databases without.
#[derive(Default)]
pub(crate) struct Owned {
    pub(crate) connector: Option<Names>,
    pub(crate) topics: Vec<String>,
    pub(crate) databases: BTreeSet<String>,
}

/// Removes all of it, as far as that works within a bounded time. Blocks: it is called by a destructor.
pub(crate) fn remove(servers: &Servers, prefix: &str, owned: Owned) {
    let (servers, prefix) = (servers.clone(), prefix.to_owned());
    // A thread of its own, since a destructor may run inside a runtime, where another cannot block.
    let cleaner = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let all = remove_all(&servers, &prefix, owned);
            tokio::time::timeout(PATIENCE, all)
                .await
                .unwrap_or_else(|_| Err(anyhow::anyhow!("not done in {PATIENCE:?}")))
        })
    });
    match cleaner.join() {
        Ok(Ok(())) => {}
        Ok(Err(error)) => eprintln!("cleaning up after the test: {error:#}"),
        Err(_) => eprintln!("cleaning up after the test panicked"),
    }
}

async fn remove_all(servers: &Servers, prefix: &str, owned: Owned) -> anyhow::Result<()> {
    // The connector first: its slot keeps the database from being dropped.
    if let Some(names) = owned.connector {
        connector::remove(servers, &names).await?;
    }
    for database in &owned.databases {
        databases::drop_database(servers, prefix, database).await?;
    }
    if !owned.topics.is_empty() {
        let topics: Vec<&str> = owned.topics.iter().map(String::as_str).collect();
        admin::delete_topics(&servers.endpoints().kafka(), &topics).await?;
    }
    Ok(())
}
