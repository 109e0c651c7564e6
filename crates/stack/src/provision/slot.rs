//! The replication slot of the outbox.
//!
//! The slot is where PostgreSQL remembers what Debezium has not read yet. It must be there before the first
//! order: what is written before it is never published by it.

use std::time::Duration;

use sqlx::Row;

use super::databases::superuser;
use super::{Names, publication};
use crate::Error;
use crate::servers::Endpoints;

const FIND: &str = "SELECT database, active, wal_status, confirmed_flush_lsn::text AS confirmed, \
    CASE WHEN wal_status = 'lost' THEN 0 \
         ELSE COALESCE(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint END AS retained, \
    (SELECT CASE WHEN setting::bigint >= 0 THEN setting::bigint * 1048576 END \
       FROM pg_settings WHERE name = 'max_slot_wal_keep_size') AS keep \
    FROM pg_replication_slots WHERE slot_name = $1";
const CREATE: &str = "SELECT pg_create_logical_replication_slot($1, 'pgoutput')";
const DROP: &str = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1";
/// Only a running connector writes heartbeats, and only order-api the outbox.
const READ_BEFORE: &str = "SELECT (SELECT to_char(max(at) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') FROM cdc_heartbeat) \
    AS heartbeat, EXISTS (SELECT FROM order_outbox) AS orders";

/// What PostgreSQL says about the slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The database it belongs to.
    pub database: String,
    /// Whether Debezium is connected to it.
    pub active: bool,
    /// Whether PostgreSQL has thrown away log that Debezium had not read.
    pub lost: bool,
    /// The log position up to which Debezium has confirmed.
    pub confirmed: Option<String>,
    /// Bytes of log that PostgreSQL keeps for it.
    pub retained_bytes: u64,
    /// At how many of them it is lost; `None` if never.
    pub keep_bytes: Option<u64>,
}

/// Looks the slot up.
pub async fn find(endpoints: &Endpoints, names: &Names) -> Result<Option<Slot>, Error> {
    let doing = || Error::database(format!("looking up replication slot {}", names.slot));
    let mut connection = superuser(endpoints, &names.orders_database()).await?;
    let row = sqlx::query(FIND).bind(&names.slot).fetch_optional(&mut connection).await.map_err(doing())?;
    row.map(|row| {
        let wal_status: Option<String> = row.try_get("wal_status")?;
        Ok(Slot {
            database: row.try_get("database")?,
            active: row.try_get("active")?,
            lost: wal_status.as_deref() == Some("lost"),
            confirmed: row.try_get("confirmed")?,
            retained_bytes: u64::try_from(row.try_get::<i64, _>("retained")?).unwrap_or_default(),
            keep_bytes: row.try_get::<Option<i64>, _>("keep")?.and_then(|bytes| u64::try_from(bytes).ok()),
        })
    })
    .transpose()
    .map_err(doing())
}

/// What tells that a slot which is not there was there before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadBefore {
    /// When the connector wrote its last heartbeat, in UTC, if it ever did.
    pub last_heartbeat: Option<String>,
}

/// Whether the outbox was used before, so that a slot is not missing for the first time.
pub async fn read_before(endpoints: &Endpoints, names: &Names) -> Result<Option<ReadBefore>, Error> {
    let doing = || Error::database("looking up what was published before");
    let mut connection = superuser(endpoints, &names.orders_database()).await?;
    let row = sqlx::query(READ_BEFORE).fetch_one(&mut connection).await.map_err(doing())?;
    let last_heartbeat: Option<String> = row.try_get("heartbeat").map_err(doing())?;
    let orders: bool = row.try_get("orders").map_err(doing())?;
    Ok((last_heartbeat.is_some() || orders).then_some(ReadBefore { last_heartbeat }))
}

/// Makes the slot if it is missing, after the publication. Returns whether it was made: then the connector's
/// stored offsets belong to another slot and must be forgotten.
///
/// # Errors
/// Also when the slot is there but cannot be used. It is never replaced: that would hide what was lost.
pub async fn ensure(endpoints: &Endpoints, names: &Names) -> Result<bool, Error> {
    let database = names.orders_database();
    if let Some(slot) = find(endpoints, names).await? {
        if slot.database != database {
            return Err(Error::Other(format!(
                "replication slot {} belongs to database {}, not to {database}",
                names.slot, slot.database
            )));
        }
        if slot.lost {
            return Err(Error::Other(format!(
                "replication slot {} is lost: PostgreSQL dropped log that was not read. `symphony repair slot` replaces \
                 it while the stack runs",
                names.slot
            )));
        }
        return Ok(false);
    }
    if !publication::is_whole(endpoints, names).await? {
        return Err(Error::Other(format!(
            "database {database} has no publication orders_outbox, or one that lacks something: {}",
            publication::SQL
        )));
    }
    let doing = || Error::database(format!("creating replication slot {}", names.slot));
    let mut connection = superuser(endpoints, &database).await?;
    sqlx::query(CREATE).bind(&names.slot).execute(&mut connection).await.map_err(doing())?;
    Ok(true)
}

/// Drops the slot; nobody may read from it. A slot that is not there is no error.
pub async fn drop(endpoints: &Endpoints, names: &Names) -> Result<(), Error> {
    let doing = Error::database(format!("dropping replication slot {}", names.slot));
    let mut connection = superuser(endpoints, &names.orders_database()).await?;
    sqlx::query(DROP).bind(&names.slot).execute(&mut connection).await.map_err(doing)?;
    Ok(())
}

/// Waits until nobody reads from the slot, if it is there.
pub async fn until_idle(endpoints: &Endpoints, names: &Names, limit: Duration) -> Result<(), Error> {
    let idle = async {
        while find(endpoints, names).await?.is_some_and(|slot| slot.active) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    };
    let still =
        || Error::Other(format!("replication slot {} is read for longer than {} s", names.slot, limit.as_secs()));
    tokio::time::timeout(limit, idle).await.unwrap_or_else(|_| Err(still()))
}

/// Waits until Debezium reads from the slot. Connect's word is no proof: after a restart it repeats old ones.
pub async fn until_active(endpoints: &Endpoints, names: &Names, limit: Duration) -> Result<(), Error> {
    let active = async {
        loop {
            if find(endpoints, names).await?.is_some_and(|slot| slot.active) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(limit, active).await.unwrap_or_else(|_| {
        Err(Error::Connector {
            doing: format!("starting connector {}", names.connector),
            detail: format!("nobody read from replication slot {} within {} s", names.slot, limit.as_secs()),
        })
    })
}
