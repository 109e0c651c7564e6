//! PostgreSQL: the pool, work that a request cannot cut in half, and what an error means.

use std::future::Future;
use std::panic::resume_unwind;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgPool};
use tokio_util::sync::CancellationToken;

use crate::config::DatabaseConfig;
use crate::health::CheckResult;

pub use messaging::is_unavailable;

/// PostgreSQL cuts names at this many bytes.
const MAX_APPLICATION_NAME: usize = 63;

/// A connection that idled longer is asked whether it still lives.
const PING_AFTER: Duration = Duration::from_secs(1);

/// Below the health check's own timeout, so that its report tells what the database said.
const PROBE_TIMEOUT: Duration = Duration::from_millis(900);

const PROBE: &str = "SELECT 1";

/// Every statement of a service reaches its rows by key. But plans are kept for a connection's life, and one that was
/// made while a table was nearly empty, which is how every table begins, reads it whole also when it has grown: until
/// PostgreSQL analyses the table, which at the rates of this platform is a hundred thousand rows later.
const BY_KEY: [(&str, &str); 2] = [("enable_seqscan", "off"), ("enable_mergejoin", "off")];
/// A hash join of a table with the rows of a batch reads the table whole too. Between arrays it is what one wants, so
/// this is not for every service.
const JOIN_BY_KEY: [(&str, &str); 1] = [("enable_hashjoin", "off")];

/// Reads a connection URL.
pub(crate) fn parse_url(url: &str) -> Result<PgConnectOptions, sqlx::Error> {
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(sqlx::Error::Configuration("it must be postgres://role:password@host:port/database".into()));
    }
    url.parse()
}

/// A pool that connects when it is first used. Every connection has the configured timeouts, so that
/// neither a stuck statement nor a stuck client holds locks for ever, and plans for tables that grow.
///
/// # Errors
/// When the URL cannot be read.
pub fn pool(config: &DatabaseConfig, application: &str) -> Result<PgPool, sqlx::Error> {
    Ok(PgPoolOptions::new()
        .max_connections(config.max_connections)
        .acquire_timeout(Duration::from_millis(config.acquire_timeout_ms))
        // A ping before each use would double the round trips under load; one before the use of a
        // connection that idled finds those that died with a restarted server.
        .test_before_acquire(false)
        .before_acquire(|connection, usage| {
            Box::pin(async move {
                if usage.idle_for > PING_AFTER {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        .connect_lazy_with(options(config, application)?))
}

/// Has the connections that `pool` will open plan as those of [`pool`](pool()) do. For pools made elsewhere, in tests.
pub fn plan_by_key(pool: &PgPool) {
    pool.set_connect_options(pool.connect_options().as_ref().clone().options(BY_KEY));
}

/// Has the connections that `pool` will open join tables with the rows of a batch by key alone. Going by the index in
/// the order of the ids, all writers also lock rows in one order.
pub fn join_by_key(pool: &PgPool) {
    pool.set_connect_options(pool.connect_options().as_ref().clone().options(JOIN_BY_KEY));
}

/// One connection for the health check, kept only while someone probes.
pub(crate) fn probe_pool(config: &DatabaseConfig, application: &str) -> Result<PgPool, sqlx::Error> {
    Ok(PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(PROBE_TIMEOUT)
        .idle_timeout(Duration::from_secs(30))
        .connect_lazy_with(options(config, application)?))
}

pub(crate) async fn probe(pool: PgPool) -> CheckResult {
    match sqlx::query(PROBE).execute(&pool).await {
        Ok(_) => Ok("answers".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn options(config: &DatabaseConfig, application: &str) -> Result<PgConnectOptions, sqlx::Error> {
    let mut end = application.len().min(MAX_APPLICATION_NAME);
    while !application.is_char_boundary(end) {
        end -= 1;
    }
    let timeouts = [
        ("statement_timeout", config.statement_timeout_ms.to_string()),
        ("lock_timeout", config.lock_timeout_ms.to_string()),
        ("idle_in_transaction_session_timeout", config.idle_in_transaction_timeout_ms.to_string()),
    ];
    Ok(parse_url(&config.url)?.application_name(&application[..end]).options(timeouts).options(BY_KEY))
}

/// Runs `future` to its end in a task of its own, even when the caller is dropped. A panic in it goes on in
/// the caller.
///
/// Use it for a transaction wherever the caller can be dropped in the middle, which every HTTP handler can: the client
/// goes away, or the request times out. With sqlx 0.9.0 a `pool.begin()` dropped between sending BEGIN and reading its
/// answer puts a connection back into the pool with the transaction open, and whoever gets it next works inside that
/// and loses its commit.
///
/// # Errors
/// Those of `future`; `PoolClosed` when the runtime is going down.
pub async fn detached<T, E>(future: impl Future<Output = Result<T, E>> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: From<sqlx::Error> + Send + 'static,
{
    match tokio::spawn(future).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            Err(_) => Err(sqlx::Error::PoolClosed.into()),
        },
    }
}

/// Calls `operation` until it gives anything but "the database is unavailable", with pauses of up to 5 s:
/// for [`crate::App::on_start`], which a service may reach before its database.
///
/// # Errors
/// Those of `operation`; the unavailability itself when `shutdown` comes first.
pub async fn until_available<T, F, Fut>(
    what: &str,
    shutdown: &CancellationToken,
    mut operation: F,
) -> Result<T, sqlx::Error>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, sqlx::Error>>,
{
    let mut pause = Duration::from_millis(100);
    loop {
        let error = match operation().await {
            Err(error) if is_unavailable(&error) => error,
            result => return result,
        };
        tracing::warn!(%error, "{what}: the database is unavailable, trying again in {pause:?}");
        tokio::select! {
            () = shutdown.cancelled() => return Err(error),
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nowhere() -> PgPool {
        let config = DatabaseConfig {
            // Port 1 refuses connections everywhere.
            url: "postgres://nobody@127.0.0.1:1/nothing".to_owned(),
            max_connections: 1,
            acquire_timeout_ms: 50,
            statement_timeout_ms: 1000,
            lock_timeout_ms: 1000,
            idle_in_transaction_timeout_ms: 1000,
        };
        pool(&config, "test").unwrap()
    }

    #[tokio::test]
    async fn a_transaction_on_a_database_that_is_down_is_unavailable() {
        let pool = nowhere();
        let result = detached(async move { pool.begin().await.map(drop) }).await;
        assert!(is_unavailable(&result.unwrap_err()));
    }

    #[tokio::test]
    async fn work_goes_on_when_its_caller_is_dropped() {
        let (started, has_started) = tokio::sync::oneshot::channel();
        let (go, may_go) = tokio::sync::oneshot::channel::<()>();
        let (done, is_done) = tokio::sync::oneshot::channel();
        let caller = tokio::spawn(detached::<_, sqlx::Error>(async move {
            started.send(()).unwrap();
            may_go.await.unwrap();
            done.send(()).unwrap();
            Ok(())
        }));
        has_started.await.unwrap();
        caller.abort();
        assert!(caller.await.unwrap_err().is_cancelled());
        go.send(()).unwrap();
        is_done.await.unwrap();
    }

    #[tokio::test]
    async fn waiting_for_a_database_ends_with_the_service() {
        let shutdown = CancellationToken::new();
        shutdown.cancel();
        let pool = nowhere();
        let result = until_available("test", &shutdown, || async { pool.acquire().await.map(drop) }).await;
        assert!(is_unavailable(&result.unwrap_err()));
    }

    #[test]
    fn other_databases_are_refused() {
        assert!(parse_url("mysql://root@localhost/x").is_err());
        assert!(parse_url("postgres://orders:secret@localhost:5432/orders").is_ok());
    }
}
