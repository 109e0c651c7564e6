//! Processes that die, and processes that stand still.

use std::time::{Duration, Instant};

use anyhow::ensure;
use nix::sys::signal::Signal;
use stack::process::is_suspended;
use stack::supervisor::control::Request;

use super::Injected;
use crate::soak::stand::{Stand, until};

/// Longer than a consumer may be silent (6 s) before its partitions are given to others.
const FROZEN: Duration = Duration::from_secs(8);
/// The supervisor tries again for longer than this.
const PATIENCE: Duration = Duration::from_secs(60);

/// Kills a component, and waits until the supervisor has started another process in its place.
pub(super) async fn kill(stand: &Stand, name: &'static str) -> anyhow::Result<Injected> {
    let before = stand.process(name)?;
    let from = Instant::now();
    stand.ask(Request::Kill { name: name.into(), signal: Signal::SIGKILL as i32 }).await?;
    ensure!(before.gone_within(Duration::from_secs(5)).await, "process {} outlived SIGKILL", before.pid);
    let after = until(&format!("another process of {name}"), PATIENCE, async || {
        stand.process(name).ok().filter(|process| *process != before)
    })
    .await?;
    Ok(Injected {
        target: name.into(),
        proof: format!("process {} is gone, {} in its place", before.pid, after.pid),
        from,
    })
}

/// Stops a service, lets it go on, and proves that it stood still all the while.
pub(super) async fn freeze(stand: &Stand, name: &'static str) -> anyhow::Result<Injected> {
    let process = stand.process(name)?;
    process.signal(Signal::SIGSTOP)?;
    let since = Instant::now();
    let mut stood = 0_u32;
    while since.elapsed() < FROZEN {
        tokio::time::sleep(Duration::from_millis(200)).await;
        ensure!(process.is_alive() && is_suspended(process.pid), "process {} did not stand still", process.pid);
        stood += 1;
    }
    let (seconds, from) = (since.elapsed().as_secs_f64(), Instant::now());
    process.signal(Signal::SIGCONT)?;
    let proof = format!("process {} stood still for {seconds:.1} s, seen {stood} times", process.pid);
    Ok(Injected { target: name.into(), proof, from })
}
