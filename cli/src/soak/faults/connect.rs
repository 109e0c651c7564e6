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

/// Gives the connector a setting with which its task fails at once, and takes it back.
pub(super) async fn fail_task(stand: &Stand) -> anyhow::Result<Injected> {
    let connector = connector(stand)?;
    let names = Names::default();
    let url = format!("{}/connectors/{}/config", stand.endpoints.connect(), names.connector);
    let mut config: Value = stand.http.get(&url).send().await?.error_for_status()?.json().await?;
    config[BROKEN.0] = BROKEN.1.into();
    until("Connect to take the configuration", Duration::from_secs(30), async || {
        let answer = stand.http.put(&url).json(&config).send().await.ok()?;
        answer.status().is_success().then_some(())
    })
    .await?;
    let reason = until("the task to fail", Duration::from_secs(30), async || match connector.status().await {
        Ok(Status::Failed { reason }) => Some(reason),
        _ => None,
    })
    .await?;
    tokio::time::sleep(HELD).await;
    connector.apply(false).await?;
    Ok(Injected { target: names.connector, proof: format!("seen FAILED: {reason}"), from: Instant::now() })
}

fn connector(stand: &Stand) -> anyhow::Result<OutboxConnector> {
    Ok(OutboxConnector::load(&Repository::find()?, &stand.endpoints, &Names::default())?)
}
