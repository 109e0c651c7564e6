//! Statements are plain strings; this is what checks them.

use serde_json::Value;
use sqlx::{AssertSqlSafe, Executor, PgPool, Row, SqlSafeStr};

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

/// Checks that every statement but those called in `whole` reaches the rows of the `growing` tables by key, however it
/// is planned: while they are empty, when `fill` has filled them (run as the superuser behind `admin`) and PostgreSQL
/// knows nothing about them yet, and when it does. The plans are the generic ones, which connections keep.
///
/// # Panics
/// Names every statement that reads a table or an index from end to end.
pub async fn assert_plans_by_key(
    pool: &PgPool,
    statements: &[(&str, &str)],
    whole: &[&str],
    growing: &[&str],
    (admin, fill): (&PgPool, &str),
) {
    let mut readers = Vec::new();
    for stage in ["empty", "filled", "analysed"] {
        match stage {
            "filled" => _ = sqlx::raw_sql(AssertSqlSafe(fill)).execute(admin).await.expect("rows"),
            "analysed" => _ = sqlx::raw_sql("ANALYZE").execute(admin).await.expect("statistics"),
            _ => {}
        }
        for (name, sql) in statements.iter().filter(|(name, _)| !whole.contains(name)) {
            let explain = AssertSqlSafe(format!("EXPLAIN (GENERIC_PLAN, FORMAT JSON) {sql}"));
            let row = sqlx::raw_sql(explain).fetch_one(pool).await.unwrap_or_else(|error| panic!("{name}: {error}"));
            let plan: String = row.try_get_unchecked(0).expect("a plan");
            let plan: Value = serde_json::from_str(&plan).expect("JSON");
            let mut nodes = vec![(&plan[0]["Plan"], false)];
            while let Some((node, above)) = nodes.pop() {
                let text = |key: &str| node[key].as_str().unwrap_or_default();
                let (kind, table) = (text("Node Type"), text("Relation Name"));
                // A page in the order of an index ends with its last row; what needs all rows first has no end before.
                let limited =
                    (above || kind == "Limit") && !matches!(kind, "Sort" | "Aggregate" | "Hash" | "WindowAgg");
                let without_key = kind.starts_with("Index") && node["Index Cond"].is_null() && !limited;
                let from_end_to_end = kind == "Seq Scan" || without_key;
                if from_end_to_end && growing.iter().any(|growing| table.starts_with(growing)) {
                    readers.push(format!("{name} reads {table} by {kind} while tables are {stage}"));
                }
                nodes.extend(node["Plans"].as_array().into_iter().flatten().map(|child| (child, limited)));
            }
        }
    }
    assert!(readers.is_empty(), "{} plans do not go by key:\n{}", readers.len(), readers.join("\n"));
}
