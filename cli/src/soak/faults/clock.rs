//! The clock of one service jumps ahead, and back.

use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use chrono::{DateTime, Utc};

use super::Injected;
use crate::soak::stand::{Stand, until};

/// As the catalogue says. The broker dates what it stores, so a message may come from as far ahead as that.
const AHEAD: Duration = Duration::from_secs(60 * 60);
const HELD: Duration = Duration::from_secs(10);

/// Sets the clock of `service` ahead and back again. Its answers carry its date.
pub(super) async fn step(stand: &Stand, service: &'static str) -> anyhow::Result<Injected> {
    set(stand, service, AHEAD)?;
    let ahead = until("the service's clock to be ahead", Duration::from_secs(10), async || {
        ahead(stand, service).await.ok().filter(|ahead| *ahead > AHEAD.as_secs() as i64 / 2)
    })
    .await?;
    tokio::time::sleep(HELD).await;
    set(stand, service, Duration::ZERO)?;
    let proof = format!("its answers were dated {ahead} s ahead for {} s", HELD.as_secs());
    Ok(Injected { target: service.into(), proof, from: Instant::now() })
}

/// Sets the clock of `service` ahead by so much.
pub(super) fn set(stand: &Stand, service: &str, ahead: Duration) -> anyhow::Result<()> {
    match stand.shim() {
        Ok(shim) => shim.set(&format!("{service}-1"), ahead),
        Err(why) if ahead > Duration::ZERO => Err(anyhow!(why)),
        Err(_) => Ok(()),
    }
}

/// How far the date of its answers is ahead of our clock. Seconds.
async fn ahead(stand: &Stand, service: &str) -> anyhow::Result<i64> {
    let answer = stand.http.get(format!("{}/livez", stand.component(service)?.url)).send().await?;
    let date = answer.headers().get("date").context("a date")?.to_str()?;
    let date = DateTime::parse_from_rfc2822(date)?;
    Ok((date.with_timezone(&Utc) - Utc::now()).num_seconds())
}
