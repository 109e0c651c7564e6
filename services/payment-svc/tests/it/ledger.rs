//! What the database refuses whatever the code does, and what a charge costs.

use testkit::Env;
use testkit::participant::deliver;
use uuid::Uuid;

use crate::{charge, handler, refund};

async fn refusal(env: &Env, sql: &'static str, order: Uuid) -> String {
    let done = sqlx::query(sql).bind(order).execute(&env.role_pool("payment")).await;
    done.expect_err("the database refuses").to_string()
}

#[tokio::test]
async fn the_database_refuses_what_the_code_must_not_do() {
    let env = Env::bare("payment");
    let handler = handler(&env).await;
    let order = Uuid::now_v7();
    deliver(&handler, &[charge(order, "tok_ok")]).await;

    let again = "INSERT INTO ledger_entries (order_id, kind, debit_account, credit_account, amount, currency)
                 VALUES ($1, 'CHARGE', 'receivable', 'revenue', 1, 'EUR')";
    assert!(refusal(&env, again, order).await.contains("ledger_entries_pkey"));
    let unfounded = "INSERT INTO ledger_entries (order_id, kind, debit_account, credit_account, amount, currency)
                     VALUES ($1, 'REFUND', 'revenue', 'receivable', 1, 'EUR')";
    assert!(refusal(&env, unfounded, Uuid::now_v7()).await.contains("ledger_entries_reverses"));
    let lopsided = "INSERT INTO ledger_entries (order_id, kind, debit_account, credit_account, amount, currency)
                    VALUES ($1, 'CHARGE', 'receivable', 'receivable', 1, 'EUR')";
    assert!(refusal(&env, lopsided, Uuid::now_v7()).await.contains("ledger_entries_accounts"));
    let undated = "UPDATE payments SET state = 'REFUNDED' WHERE order_id = $1";
    assert!(refusal(&env, undated, order).await.contains("payments_undo"));
    for forbidden in [
        "UPDATE ledger_entries SET amount = 1 WHERE order_id = $1",
        "DELETE FROM ledger_entries WHERE order_id = $1",
        "UPDATE payments SET amount = 1 WHERE order_id = $1",
        "DELETE FROM payments WHERE order_id = $1",
    ] {
        assert!(refusal(&env, forbidden, order).await.contains("permission denied"), "{forbidden}");
    }
}

#[tokio::test]
async fn a_charge_writes_two_rows() {
    let env = Env::bare("payment");
    let handler = handler(&env).await;
    let batch: Vec<_> = (0..100).map(|_| charge(Uuid::now_v7(), "tok_ok")).collect();
    deliver(&handler, &batch).await;
    deliver(&handler, &batch).await;
    let pool = env.pool("payment");
    let writes = async || -> i64 {
        let sql = "SELECT sum(n_tup_ins + n_tup_upd + n_tup_del)::bigint FROM pg_stat_user_tables
                   WHERE relname NOT LIKE '\\_sqlx%'";
        sqlx::query_scalar(sql).fetch_one(&pool).await.expect("statistics")
    };
    // The backends report a moment later.
    testkit::wait_until("200 rows written", std::time::Duration::from_secs(10), async || writes().await >= 200).await;
    assert_eq!(writes().await, 200);
}

#[tokio::test]
async fn a_refund_empties_the_accounts() {
    let env = Env::bare("payment");
    let handler = handler(&env).await;
    let orders: Vec<Uuid> = (0..10).map(|_| Uuid::now_v7()).collect();
    deliver(&handler, &orders.iter().map(|order| charge(*order, "tok_ok")).collect::<Vec<_>>()).await;
    deliver(&handler, &orders[1..].iter().map(|order| refund(*order)).collect::<Vec<_>>()).await;
    let balances: Vec<(String, String, i64)> =
        sqlx::query_as(payment_svc::STATEMENTS[7].1).fetch_all(&env.role_pool("payment")).await.expect("a ledger");
    let account = |name: &str, balance| (name.to_owned(), "EUR".to_owned(), balance);
    assert_eq!(balances, [account("receivable", 3998), account("revenue", -3998)]);
}
