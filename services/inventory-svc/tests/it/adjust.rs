//! What the database refuses whatever the code does.

use testkit::Env;
use testkit::participant::deliver;
use uuid::Uuid;

use crate::{handler, reserve};

#[tokio::test]
async fn the_database_refuses_what_the_code_must_not_do() {
    let env = Env::bare("inventory");
    let handler = handler(&env).await;
    deliver(&handler, &[reserve(Uuid::now_v7(), &[("SKU-001", 1)])]).await;
    let pool = env.role_pool("inventory");
    for (sql, refusal) in [
        ("UPDATE stock SET available = available + 1 WHERE sku = 'SKU-001'", "stock_is_conserved"),
        ("UPDATE stock SET available = -1, reserved = 1000001 WHERE sku = 'SKU-001'", "stock_available_check"),
        ("UPDATE reservations SET state = 'RELEASED'", "reservations_undo"),
        ("UPDATE reservations SET state = 'SHIPPED'", "reservations_shipment"),
        ("UPDATE reservations SET items = '[]'", "permission denied"),
        ("UPDATE stock SET initial = 0", "permission denied"),
        ("DELETE FROM stock", "permission denied"),
        ("UPDATE adjustments SET delta = 0", "permission denied"),
        ("DELETE FROM adjustments", "permission denied"),
        ("DELETE FROM reservations", "permission denied"),
    ] {
        let error = sqlx::query(sql).execute(&pool).await.expect_err("the database refuses");
        assert!(error.to_string().contains(refusal), "{sql}: {error}");
    }
}
