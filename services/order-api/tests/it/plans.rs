//! How the statements reach their rows, whenever they were planned.

use service_kit::db;
use testkit::{Env, assert_plans_by_key};

const FILL: &str = "
    INSERT INTO orders (id, customer_id, total_minor, currency)
    SELECT uuidv7(), 'c-' || n % 100, 5, 'EUR' FROM generate_series(1, 20000) AS n;
    INSERT INTO order_items SELECT id, 0, 'SKU-001', 1, 5 FROM orders;
    INSERT INTO order_outbox (id, aggregatetype, aggregateid, type, payload, source, time, sagaid)
    SELECT id, 'order.created', id::text, 't', 'x', 's', 't', id::text FROM orders;";

#[tokio::test]
async fn every_statement_reaches_its_rows_by_key_in_empty_and_in_grown_tables() {
    // The lists page backwards from the newest order; what is published again are a few stragglers.
    const WHOLE: &[&str] = &["LIST_ORDERS", "LIST_ORDERS_BY_STATUS", "REEMIT"];
    const GROWING: &[&str] = &["orders", "order_items", "order_outbox"];
    let env = Env::bare("orders");
    env.create_database("orders").await;
    let pool = env.role_pool("orders");
    db::plan_by_key(&pool);
    assert_plans_by_key(&pool, order_api::STATEMENTS, WHOLE, GROWING, (&env.pool("orders"), FILL)).await;
}
