//! What can go wrong while the local profile starts, runs and stops.

use std::io;
use std::time::Duration;

/// A failure of the local profile. The message names what was being done; the source says why it failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file, a directory or a process could not be used.
    #[error("{doing}")]
    Io {
        /// What was being done, with the path.
        doing: String,
        #[source]
        source: io::Error,
    },
    /// A helper program ended with an error.
    #[error("{doing} failed ({status})\n{output}")]
    Tool {
        /// What was being done.
        doing: String,
        /// Exit code or signal.
        status: String,
        /// The end of what it printed.
        output: String,
    },
    /// A program ended before it was ready.
    #[error("{name} ended ({status}) before it was ready; waited for {waited_for}\n{log}")]
    Ended {
        /// Component, with its instance if there are several.
        name: String,
        /// Exit code or signal.
        status: String,
        /// What readiness means for it.
        waited_for: String,
        /// The end of its log.
        log: String,
    },
    /// A program runs but did not become ready in time.
    #[error("{name} was not ready after {} s; waited for {waited_for}\n{log}", after.as_secs())]
    NotReady {
        /// Component, with its instance if there are several.
        name: String,
        /// The time it was given.
        after: Duration,
        /// What readiness means for it.
        waited_for: String,
        /// The end of its log.
        log: String,
    },
    /// A statement against PostgreSQL failed.
    #[error("{doing}")]
    Database {
        /// What was being done.
        doing: String,
        #[source]
        source: sqlx::Error,
    },
    /// A migration failed.
    #[error("migrating database {database}")]
    Migration {
        /// Name of the database.
        database: String,
        #[source]
        source: sqlx::migrate::MigrateError,
    },
    /// The broker did not answer or refused.
    #[error("{doing}")]
    Kafka {
        /// What was being done.
        doing: &'static str,
        #[source]
        source: Box<messaging::admin::AdminError>,
    },
    /// Kafka Connect could not be reached.
    #[error("{doing}")]
    ConnectUnreachable {
        /// What was being done.
        doing: String,
        #[source]
        source: reqwest::Error,
    },
    /// Kafka Connect refused, or the connector does not run.
    #[error("{doing}: {detail}")]
    Connector {
        /// What was being done.
        doing: String,
        /// What Connect said.
        detail: String,
    },
    /// A file of the repository has wrong content.
    #[error("{file}: {detail}")]
    File {
        /// Path of the file.
        file: String,
        /// What is wrong with it.
        detail: String,
    },
    /// Anything else that a message says completely.
    #[error("{0}")]
    Other(String),
}

impl Error {
    /// For `map_err`: keeps the I/O error as the source of a message that names what was being done.
    pub fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }

    /// For `map_err`: keeps the database error as the source of a message that names what was being done.
    pub fn database(doing: impl Into<String>) -> impl FnOnce(sqlx::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Database { doing, source }
    }

    /// The message followed by the messages of all its sources.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            text.push_str(": ");
            text.push_str(&error.to_string());
            source = error.source();
        }
        text
    }
}
