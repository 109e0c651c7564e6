//! Brings everything else to the point that the databases were restored to.
//!
//! The databases are the truth: what they do not know has not happened. Kafka holds more than that, since messages from
//! after the point are still there: commands and replies of effects that the restore has undone. Read again they would be
//! believed, so they go. What must come again is made from the databases by the platform's own rule: an order's event,
//! published again, has the orchestrator say again whatever is outstanding. In this order, each step may be done again:
//!
//! 1. [`lost`]: orders that were accepted after the point are known from `order.created`, and are entered as they came.
//! 2. [`topics`]: the records of all other saga topics are deleted; dead letters stay and are indexed again.
//! 3. [`refill`]: the events of all orders that are not over for everybody are published again.
//!
//! No service may run meanwhile, and the replication slot must be there, or nobody would publish what is written here.

mod lost;
mod topics;

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Serialize;
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use stack::provision::Names;
use stack::provision::refill::{self, Databases};
use uuid::Uuid;

/// Services that are connected to one of the databases.
const CONNECTED: &str = "\
SELECT DISTINCT usename::text FROM pg_stat_activity
 WHERE datname LIKE $1 || '%' AND usename NOT IN ('postgres', 'debezium') ORDER BY 1";

/// Whether what is written to the outbox from now on will be published.
const IS_READ: &str = "\
SELECT EXISTS (SELECT FROM pg_replication_slots
                WHERE slot_name = $1 AND database = current_database() AND wal_status IS DISTINCT FROM 'lost')";

/// What to bring to one point.
#[derive(Clone, Debug, Default)]
pub struct Target {
    /// `host:port` of PostgreSQL, whose superuser needs no password.
    pub postgres: String,
    /// Put before the name of each database; empty outside tests.
    pub database_prefix: String,
    /// `host:port` of a Kafka broker.
    pub kafka: String,
    /// Put before the name of each topic and consumer group; empty outside tests.
    pub topic_prefix: String,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Recovered {
    /// Orders that only Kafka knew of, and the databases know again.
    pub orders: Vec<Uuid>,
    /// Events of `order.created` that no order can be made of, as `partition@offset` with the reason.
    pub unreadable: Vec<String>,
    /// Messages that were deleted since they are from after the point, or are said again.
    pub discarded: i64,
    /// Orders whose event is published again, the recovered ones not counted.
    pub published_again: u64,
    /// Orders whose event should be, and is not in the outbox any more.
    pub without_event: u64,
}

/// Brings lost orders and Kafka to the databases' point.
///
/// # Errors
/// Also when a service runs, or there is no slot that can be read. What was done by then is right, and is done by the next
/// call too.
pub async fn align(target: &Target) -> anyhow::Result<Recovered> {
    let mut orders = target.connect("orders").await?;
    let running: Vec<String> =
        sqlx::query_scalar(CONNECTED).bind(&target.database_prefix).fetch_all(&mut orders).await?;
    if !running.is_empty() {
        bail!("services are connected to the databases, stop them first: {}", running.join(", "));
    }
    let slot = Names::prefixed(&target.database_prefix).slot;
    if !sqlx::query_scalar::<_, bool>(IS_READ).bind(&slot).fetch_one(&mut orders).await? {
        bail!("replication slot {slot} is missing or lost, nothing would be published: make it anew first");
    }
    let lost = lost::recover(target, &mut orders).await?;
    let discarded = topics::discard(target).await?;
    topics::index_again(target).await?;
    let (inventory, notification) = (target.connect("inventory").await?, target.connect("notification").await?);
    let mut databases = Databases { orders, inventory, notification };
    let mut unfinished = databases.unfinished(None, Duration::ZERO).await?;
    // Those that were just entered have an event that is not published yet. They are sorted.
    unfinished.open.retain(|order| lost.orders.binary_search(order).is_err());
    let published_again = refill::insert_again(&mut databases.orders, &unfinished).await?;
    let without_event = (unfinished.len() as u64).saturating_sub(published_again);
    Ok(Recovered { orders: lost.orders, unreadable: lost.unreadable, discarded, published_again, without_event })
}

impl Target {
    async fn connect(&self, database: &str) -> anyhow::Result<PgConnection> {
        let name = format!("{}{database}", self.database_prefix);
        let options: PgConnectOptions = format!("postgres://postgres@{}/{name}", self.postgres).parse()?;
        options.application_name("symphony restore").connect().await.with_context(|| format!("database {name}"))
    }

    fn topic(&self, name: &str) -> String {
        format!("{}{name}", self.topic_prefix)
    }
}

impl fmt::Display for Recovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>8}  orders accepted after the backup, recovered from Kafka", self.orders.len())?;
        writeln!(f, "{:>8}  other orders whose event is published again", self.published_again)?;
        write!(f, "{:>8}  messages from Kafka discarded", self.discarded)?;
        for event in &self.unreadable {
            write!(f, "\n          order.created {event}")?;
        }
        if self.without_event > 0 {
            write!(
                f,
                "\n{:>8}  orders that are not over have no event any more: symphony sagas list",
                self.without_event
            )?;
        }
        Ok(())
    }
}
