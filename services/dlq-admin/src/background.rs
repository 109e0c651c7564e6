//! What goes on without a request: replays are followed, claims of the dead taken over, campaigns run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use service_kit::{BoxError, CancellationToken};
use sqlx::PgPool;

use crate::campaign::Runner;
use crate::judge::Judge;
use crate::replay::Replays;
use crate::retention;

/// How often is looked when nothing is under way.
const IDLE: Duration = Duration::from_secs(1);
/// How often letters are counted.
const COUNTING: Duration = Duration::from_secs(15);
/// How often is looked for what can be removed.
const FORGETTING: Duration = Duration::from_secs(3_600);

/// Follows what was sent until `shutdown`.
pub(crate) async fn follow(
    mut judge: Judge,
    replays: Arc<Replays>,
    interval: Duration,
    shutdown: CancellationToken,
) -> Result<(), BoxError> {
    let mut failing = Failing::new("replays are not followed");
    let mut recovering = Failing::new("claims of the dead are not taken over");
    let mut expiring = Failing::new("replays that nobody confirms are not shown as such");
    let mut counting = Failing::new("letters are not counted");
    let mut counted: Option<Instant> = None;
    while !shutdown.is_cancelled() {
        // What fails of this keeps nothing else from being done.
        recovering.told(replays.recover().await);
        let busy = failing.told(judge.look().await).unwrap_or(false);
        expiring.told(replays.expire().await.map_err(Into::into));
        if counted.is_none_or(|counted| counted.elapsed() >= COUNTING) {
            counted = Some(Instant::now());
            counting.told(judge.count().await.map_err(Into::into));
        }
        pause(if busy { interval } else { IDLE }, &replays, &shutdown).await;
    }
    Ok(())
}

/// Runs campaigns until `shutdown`.
pub(crate) async fn run_campaigns(
    mut runner: Runner,
    replays: Arc<Replays>,
    interval: Duration,
    shutdown: CancellationToken,
) -> Result<(), BoxError> {
    let mut failing = Failing::new("campaigns stand still");
    while !shutdown.is_cancelled() {
        let next = failing.told(runner.turn().await.map_err(Into::into)).flatten();
        pause(next.map_or(IDLE, |next| next.min(interval)), &replays, &shutdown).await;
    }
    Ok(())
}

/// Removes what ended more than `days` ago, until `shutdown`.
pub(crate) async fn forget(pool: PgPool, days: u32, shutdown: CancellationToken) -> Result<(), BoxError> {
    let mut failing = Failing::new("nothing is removed after its retention");
    loop {
        failing.told(retention::forget(&pool, days).await.map_err(Into::into));
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(FORGETTING) => {}
        }
    }
}

async fn pause(time: Duration, replays: &Replays, shutdown: &CancellationToken) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = replays.wake.notified(), if time >= IDLE => {}
        () = tokio::time::sleep(time) => {}
    }
}

/// Says once that something fails, and once that it works again.
pub(crate) struct Failing {
    what: &'static str,
    since: Option<Instant>,
}

impl Failing {
    pub(crate) fn new(what: &'static str) -> Self {
        Failing { what, since: None }
    }

    pub(crate) fn told<T>(&mut self, result: Result<T, BoxError>) -> Option<T> {
        match result {
            Ok(value) => {
                if let Some(since) = self.since.take() {
                    tracing::info!(seconds = since.elapsed().as_secs(), "{} no more", self.what);
                }
                Some(value)
            }
            Err(error) => {
                if self.since.is_none() {
                    tracing::warn!(error = %error, cause = error.source().map(ToString::to_string),
                        "{}: it is tried again until it works", self.what);
                    self.since = Some(Instant::now());
                }
                None
            }
        }
    }
}
