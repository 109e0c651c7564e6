//! Statements are plain strings; this is what checks them.

use sqlx::{Executor, PgPool, SqlSafeStr};

/// Prepares every statement against the migrated database behind `pool`: names and types are then right. Grants
/// are not: PostgreSQL checks those when a statement runs, which the services' own tests do as their role.
///
/// # Panics
/// Names every statement that PostgreSQL refuses, with its reason.
pub async fn assert_statements_prepare(pool: &PgPool, statements: &'static [(&'static str, &'static str)]) {
    assert!(!statements.is_empty(), "no statement was listed");
    let mut refused = Vec::new();
    for (name, sql) in statements {
        let mut connection = pool.acquire().await.expect("a database connection");
        if let Err(error) = connection.prepare((*sql).into_sql_str()).await {
            refused.push(format!("{name}: {error}"));
        }
    }
    assert!(refused.is_empty(), "{} statements do not prepare:\n{}", refused.len(), refused.join("\n"));
}
