//! How the statements reach their rows, whenever they were planned.

use service_kit::db;
use testkit::{Env, assert_plans_by_key};

const FILL: &str = "
    INSERT INTO definition (digest, name, version, body) VALUES ('d', 'n', 1, 'b');
    INSERT INTO saga SELECT gen_random_uuid(), n % 4, 1, 1, 'RUNNING', NULL, NULL, '[]', now(), now()
    FROM generate_series(1, 20000) AS n;
    INSERT INTO saga_timeline (saga_id, version, at, type, state, emitted)
    SELECT id, 1, now(), 'STARTED', 'RUNNING', '{}' FROM saga;
    INSERT INTO saga_timer SELECT id, partition, now() + interval '1 day', false, 1 FROM saga LIMIT 2000;";

#[tokio::test]
async fn every_statement_reaches_its_rows_by_key_in_empty_and_in_grown_tables() {
    // Lists page backwards from the newest saga; what is unfinished is asked for once, at the start.
    const WHOLE: &[&str] = &["LIST_SAGAS", "LIST_UNFINISHED_SAGAS", "FIND_UNFINISHED_DEFINITIONS"];
    const GROWING: &[&str] = &["saga", "saga_timeline", "saga_timer"];
    let env = Env::bare("orchestrator");
    env.create_database("orchestrator").await;
    let pool = env.role_pool("orchestrator");
    db::plan_by_key(&pool);
    db::join_by_key(&pool);
    assert_plans_by_key(&pool, orchestrator::STATEMENTS, WHOLE, GROWING, (&env.pool("orchestrator"), FILL)).await;
}
