//! How the statements reach their rows, whenever they were planned.

use service_kit::db;
use testkit::{Env, assert_plans_by_key};

const FILL: &str = "
    INSERT INTO notifications (order_id, kind, customer_id, message)
    SELECT gen_random_uuid(), 'COMPLETED', 'c', 'm' FROM generate_series(1, 20000);";

#[tokio::test]
async fn every_statement_reaches_its_rows_by_key_in_empty_and_in_grown_tables() {
    const WHOLE: &[&str] = &[];
    const GROWING: &[&str] = &["notifications"];
    let env = Env::bare("notification");
    env.create_database("notification").await;
    let pool = env.role_pool("notification");
    db::plan_by_key(&pool);
    assert_plans_by_key(&pool, notification_svc::STATEMENTS, WHOLE, GROWING, (&env.pool("notification"), FILL)).await;
}
