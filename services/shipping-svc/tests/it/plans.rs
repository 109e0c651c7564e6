//! How the statements reach their rows, whenever they were planned.

use service_kit::db;
use testkit::{Env, assert_plans_by_key};

const FILL: &str = "
    INSERT INTO shipments
        (order_id, state, shipment_id, carrier, tracking_code, destination, items, answered_at)
    SELECT gen_random_uuid(), 'SCHEDULED', gen_random_uuid(), 'c', 't', '{}', '[]', now()
    FROM generate_series(1, 20000);";

#[tokio::test]
async fn every_statement_reaches_its_rows_by_key_in_empty_and_in_grown_tables() {
    const WHOLE: &[&str] = &[];
    const GROWING: &[&str] = &["shipments"];
    let env = Env::bare("shipping");
    env.create_database("shipping").await;
    let pool = env.role_pool("shipping");
    db::plan_by_key(&pool);
    assert_plans_by_key(&pool, shipping_svc::STATEMENTS, WHOLE, GROWING, (&env.pool("shipping"), FILL)).await;
}
