//! The replication slot of the outbox.
//!
//! The slot is where PostgreSQL remembers what Debezium has not read yet. It must be there before the first
//! order: what is written before it is never published by it.

use std::time::Duration;

use sqlx::Row;

use super::Names;
use super::databases::superuser;
use crate::Error;
use crate::servers::Endpoints;

const FIND: &str = "SELECT database, active, wal_status, confirmed_flush_lsn::text AS confirmed \
    FROM pg_replication_slots WHERE slot_name = $1";
const CREATE: &str = "SELECT pg_create_logical_replication_slot($1, 'pgoutput')";
const PUBLICATION: &str = "SELECT EXISTS (SELECT FROM pg_publication WHERE pubname = 'orders_outbox')";

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
        })
    })
    .transpose()
    .map_err(doing())
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
                "replication slot {} is lost: PostgreSQL dropped log that was not read. Stop order-api, drop the slot \
                 with pg_drop_replication_slot, and start again; order-api then publishes the open orders once more",
                names.slot
            )));
        }
        return Ok(false);
    }
    let doing = || Error::database(format!("creating replication slot {}", names.slot));
    let mut connection = superuser(endpoints, &database).await?;
    if !sqlx::query_scalar::<_, bool>(PUBLICATION).fetch_one(&mut connection).await.map_err(doing())? {
        return Err(Error::Other(format!("database {database} has no publication orders_outbox: it is not migrated")));
    }
    sqlx::query(CREATE).bind(&names.slot).execute(&mut connection).await.map_err(doing())?;
    Ok(true)
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
