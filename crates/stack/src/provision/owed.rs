//! Refills that are owed: written down before what was lost is made anew, and crossed out when the orders were published
//! again. Whoever is ended in between leaves the debt, and the next one pays it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::Names;
use super::databases::superuser;
use crate::Error;
use crate::servers::Endpoints;

const OWE: &str = "INSERT INTO owed_refills (part) VALUES ($1) \
    ON CONFLICT (part) DO UPDATE SET since = clock_timestamp()";
const OWED: &str = "SELECT part, since FROM owed_refills";
/// What was lost once more since stays owed.
const SETTLE: &str = "DELETE FROM owed_refills USING UNNEST($1::text[], $2::timestamptz[]) AS paid (part, since) \
    WHERE owed_refills.part = paid.part AND owed_refills.since = paid.since";

/// Owed for topics that were lost.
pub const TOPICS: &str = "topics";
/// Owed for the publication.
pub const PUBLICATION: &str = "publication";
/// Owed for the replication slot.
pub const SLOT: &str = "slot";

/// For each part that was lost, since when a refill is owed.
pub type Owed = BTreeMap<String, DateTime<Utc>>;

/// Writes down that a refill is owed for `part`, which is lost.
///
/// # Errors
/// When the database cannot be written.
pub async fn owe(endpoints: &Endpoints, names: &Names, part: &str) -> Result<(), Error> {
    let mut connection = superuser(endpoints, &names.orders_database()).await?;
    let written = sqlx::query(OWE).bind(part).execute(&mut connection).await;
    written.map(drop).map_err(Error::database("writing down that orders are to be published again"))
}

/// What is owed.
///
/// # Errors
/// When the database cannot be read.
pub async fn find(endpoints: &Endpoints, names: &Names) -> Result<Owed, Error> {
    let mut connection = superuser(endpoints, &names.orders_database()).await?;
    let rows: Result<Vec<(String, DateTime<Utc>)>, _> = sqlx::query_as(OWED).fetch_all(&mut connection).await;
    let rows = rows.map_err(Error::database("looking up whether orders are to be published again"))?;
    Ok(rows.into_iter().collect())
}

/// Crosses `paid` out.
///
/// # Errors
/// When the database cannot be written.
pub async fn settle(endpoints: &Endpoints, names: &Names, paid: &Owed) -> Result<(), Error> {
    let (parts, since): (Vec<&str>, Vec<DateTime<Utc>>) =
        paid.iter().map(|(part, since)| (part.as_str(), *since)).unzip();
    let mut connection = superuser(endpoints, &names.orders_database()).await?;
    let settled = sqlx::query(SETTLE).bind(parts).bind(since).execute(&mut connection).await;
    settled.map(drop).map_err(Error::database("writing down that orders were published again"))
}
