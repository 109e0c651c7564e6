//! How the statements reach their rows, whenever they were planned.

use service_kit::db;
use testkit::{Env, assert_plans_by_key};

const FILL: &str = "
    INSERT INTO payments (order_id, payment_id, state, amount, currency, answered_at)
    SELECT gen_random_uuid(), gen_random_uuid(), 'CHARGED', 5, 'EUR', now() FROM generate_series(1, 20000);
    INSERT INTO ledger_entries (order_id, kind, debit_account, credit_account, amount, currency)
    SELECT order_id, 'CHARGE', 'receivable', 'revenue', 5, 'EUR' FROM payments;
    INSERT INTO slow_charges (order_id, due_at, saga_id, step, command_id)
    SELECT order_id, now() + interval '1 day', order_id, 'payment', order_id FROM payments LIMIT 2000;";

#[tokio::test]
async fn every_statement_reaches_its_rows_by_key_in_empty_and_in_grown_tables() {
    // The sum of the ledger is asked for by people.
    const WHOLE: &[&str] = &["ledger balances"];
    const GROWING: &[&str] = &["payments", "ledger_entries", "slow_charges"];
    let env = Env::bare("payment");
    env.create_database("payment").await;
    let pool = env.role_pool("payment");
    db::plan_by_key(&pool);
    assert_plans_by_key(&pool, payment_svc::STATEMENTS, WHOLE, GROWING, (&env.pool("payment"), FILL)).await;
}
