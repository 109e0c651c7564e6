//! The outbox connector's task fails.

use std::time::{Duration, Instant};

use serde_json::Value;
use stack::Repository;
use stack::provision::connector::Status;
use stack::provision::{Names, OutboxConnector};

use super::Injected;
use crate::soak::stand::{Stand, until};

/// A setting that Connect accepts and no producer starts with, as this one is idempotent.
const BROKEN: (&str, &str) = ("producer.override.acks", "1");
/// How long the task stays failed.
const HELD: Duration = Duration::from_secs(5);

/// Gives the connector a setting with which its task fails at once, keeps it so, and takes it back.
pub(super) async fn fail_task(stand: &Stand) -> anyhow::Result<Injected> {
    let connector = connector(stand)?;
    let names = Names::default();
    let url = format!("{}/connectors/{}/config", stand.endpoints.connect(), names.connector);
    let is_failed = async || match connector.status().await {
        Ok(Status::Failed { reason }) => Some(reason),
        _ => None,
    };
    let reason = until("the task to fail", Duration::from_secs(60), async || {
        // Connect may be in the middle of a rebalance.
        spoil(stand, &url).await.ok()?;
        is_failed().await
    })
    .await?;
    let (since, mut seen) = (Instant::now(), 1_u32);
    while since.elapsed() < HELD {
        tokio::time::sleep(Duration::from_millis(250)).await;
        let _ = spoil(stand, &url).await;
        seen += u32::from(is_failed().await.is_some());
    }
    connector.apply(false).await?;
    let proof = format!("seen FAILED {seen} times in {} s: {reason}", HELD.as_secs());
    Ok(Injected { target: names.connector, proof, from: Instant::now() })
}

/// Sets what is broken, unless it is set: the supervisor sets it back every 15 s.
async fn spoil(stand: &Stand, url: &str) -> anyhow::Result<()> {
    let mut config: Value = stand.http.get(url).send().await?.error_for_status()?.json().await?;
    if config[BROKEN.0] != BROKEN.1 {
        config[BROKEN.0] = BROKEN.1.into();
        stand.http.put(url).json(&config).send().await?.error_for_status()?;
    }
    Ok(())
}

fn connector(stand: &Stand) -> anyhow::Result<OutboxConnector> {
    Ok(OutboxConnector::load(&Repository::find()?, &stand.endpoints, &Names::default())?)
}
