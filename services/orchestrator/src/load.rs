//! Reading: sagas with all that their next messages draw from, and the database's clock, in one round trip.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use messaging::{HandlerError, Poison};
use saga::{Saga, SagaState};
use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};
use uuid::Uuid;

use crate::steps;

/// The columns that [`Stored::from_row`] reads.
macro_rules! saga_columns {
    () => {
        "s.id, s.partition, s.definition_id, s.version, s.state, s.reason, s.cause, s.steps::text AS steps,
       s.started_at, s.updated_at, d.steps AS data_steps, d.data, d.trace"
    };
}
pub(crate) use saga_columns;

/// Joins to a saga `s` what its timeline keeps for later commands: trigger, outputs, trace.
macro_rules! saga_data {
    () => {
        "LEFT JOIN LATERAL (
    SELECT array_agg(l.step ORDER BY l.version) AS steps, array_agg(l.data::text ORDER BY l.version) AS data,
           max(l.trace) AS trace
    FROM saga_timeline l
    WHERE l.saga_id = s.id AND l.data IS NOT NULL
) d ON s.id IS NOT NULL"
    };
}
pub(crate) use saga_data;

/// One row for each id asked for, so that the clock comes even if no saga does.
pub(crate) const LOAD_SAGAS: &str = concat!(
    "SELECT now() AS now, ",
    saga_columns!(),
    "
FROM unnest($1::uuid[]) AS wanted (id)
LEFT JOIN saga s ON s.id = wanted.id
",
    saga_data!()
);

/// A saga as the database has it.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its state, with all that its next messages draw from.
    pub saga: Saga,
    /// The definition it is pinned to.
    pub definition_id: i32,
    /// The partition of its messages.
    pub partition: i32,
    /// `traceparent` of its trigger.
    pub trace: Option<String>,
}

/// The `saga_columns!` of one row.
#[derive(Clone, Debug)]
pub struct Columns<'r> {
    /// The saga.
    pub id: Uuid,
    pub partition: i32,
    pub definition_id: i32,
    pub version: i32,
    pub state: &'r str,
    pub reason: Option<String>,
    pub cause: Option<String>,
    /// Packed.
    pub steps: &'r str,
    pub started_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    /// What its timeline keeps: JSON by the step it is the output of, or none for the trigger.
    pub data: Vec<(Option<String>, String)>,
    pub trace: Option<String>,
}

/// Sagas as they were at one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// The database's clock.
    pub now: DateTime<Utc>,
    /// Those of the sagas asked for that there are.
    pub sagas: HashMap<Uuid, Stored>,
}

/// Why sagas could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The database did not answer, or refused.
    #[error("sagas cannot be read from the database")]
    Database(#[from] sqlx::Error),
    /// A row that this version cannot have written.
    #[error("the row of saga {saga} cannot be understood: {what}")]
    Corrupt {
        /// Whose row it is.
        saga: Uuid,
        /// What is wrong with it.
        what: String,
    },
}

impl From<LoadError> for HandlerError {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Database(error) => error.into(),
            error @ LoadError::Corrupt { .. } => {
                HandlerError::Poison(Box::new(Poison::new("corrupt-saga", error.to_string())))
            }
        }
    }
}

/// Reads the sagas of `ids`, of which there is at least one.
pub(crate) async fn load(pool: &PgPool, ids: &[Uuid]) -> Result<Snapshot, LoadError> {
    let rows = sqlx::query(LOAD_SAGAS).bind(ids).fetch_all(pool).await?;
    let now = rows.first().ok_or(sqlx::Error::RowNotFound)?.try_get("now")?;
    let mut sagas = HashMap::with_capacity(rows.len());
    for row in &rows {
        if let Some(id) = row.try_get::<Option<Uuid>, _>("id")? {
            sagas.insert(id, Stored::from_row(id, row)?);
        }
    }
    Ok(Snapshot { now, sagas })
}

impl Stored {
    /// Reads the `saga_columns!` of a row that has a saga.
    pub(crate) fn from_row(id: Uuid, row: &PgRow) -> Result<Self, LoadError> {
        let data_steps: Vec<Option<String>> = row.try_get::<Option<_>, _>("data_steps")?.unwrap_or_default();
        let data: Vec<String> = row.try_get::<Option<_>, _>("data")?.unwrap_or_default();
        Stored::of(Columns {
            id,
            partition: row.try_get("partition")?,
            definition_id: row.try_get("definition_id")?,
            version: row.try_get("version")?,
            state: row.try_get("state")?,
            reason: row.try_get("reason")?,
            cause: row.try_get("cause")?,
            steps: row.try_get("steps")?,
            started_at: row.try_get("started_at")?,
            updated_at: row.try_get("updated_at")?,
            data: data_steps.into_iter().zip(data).collect(),
            trace: row.try_get("trace")?,
        })
    }

    /// The saga that `columns` hold.
    ///
    /// # Errors
    /// [`LoadError::Corrupt`] when this version cannot have written them.
    pub fn of(columns: Columns<'_>) -> Result<Self, LoadError> {
        let Columns { id, version, state, steps, .. } = columns;
        let corrupt = |what: String| LoadError::Corrupt { saga: id, what };
        let mut trigger = None;
        let mut outputs = BTreeMap::new();
        for (step, text) in columns.data {
            let value: Value = serde_json::from_str(&text).map_err(|error| corrupt(error.to_string()))?;
            match step {
                None => trigger = Some(Arc::new(value)),
                Some(step) => drop(outputs.insert(step, Arc::new(value))),
            }
        }
        let saga = Saga {
            id,
            version: u32::try_from(version).map_err(|_| corrupt(format!("version {version}")))?,
            state: SagaState::from_name(state).ok_or_else(|| corrupt(format!("state {state:?}")))?,
            reason: columns.reason,
            cause: columns.cause,
            steps: steps::unpack(steps).map_err(|error| corrupt(format!("steps: {error}")))?,
            started_at: columns.started_at,
            updated_at: columns.updated_at,
            trigger: trigger.ok_or_else(|| corrupt("no trigger in its timeline".to_owned()))?,
            outputs,
        };
        Ok(Stored { saga, definition_id: columns.definition_id, partition: columns.partition, trace: columns.trace })
    }
}
