//! How the statements reach their rows, whenever they were planned.

use service_kit::db;
use testkit::{Env, assert_plans_by_key};

const FILL: &str = "
    INSERT INTO stock (sku, initial, available) SELECT 'X' || n, 5, 5 FROM generate_series(1, 20000) AS n;
    INSERT INTO reservations (order_id, reservation_id, state, items, answered_at)
    SELECT gen_random_uuid(), gen_random_uuid(), 'RESERVED', '[]', now() FROM generate_series(1, 20000);";

#[tokio::test]
async fn every_statement_reaches_its_rows_by_key_in_empty_and_in_grown_tables() {
    // A page of the list begins anywhere.
    const WHOLE: &[&str] = &["stock list"];
    const GROWING: &[&str] = &["stock", "reservations"];
    let env = Env::bare("inventory");
    env.create_database("inventory").await;
    let pool = env.role_pool("inventory");
    db::plan_by_key(&pool);
    db::join_by_key(&pool);
    assert_plans_by_key(&pool, inventory_svc::STATEMENTS, WHOLE, GROWING, (&env.pool("inventory"), FILL)).await;
}
