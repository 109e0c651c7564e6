//! The kit itself, on real servers.

use testkit::Env;

#[tokio::test]
async fn two_environments_share_nothing() {
    let (one, other) = tokio::join!(Env::new("payment"), Env::new("payment"));
    sqlx::query("INSERT INTO payments (order_id, state, undone_at) VALUES (gen_random_uuid(), 'REFUSED', now())")
        .execute(&one.pool("payment"))
        .await
        .expect("an insert");
    let count = "SELECT count(*) FROM payments";
    let here: i64 = sqlx::query_scalar(count).fetch_one(&one.pool("payment")).await.expect("a count");
    let there: i64 = sqlx::query_scalar(count).fetch_one(&other.role_pool("payment")).await.expect("a count");
    assert_eq!((here, there), (1, 0));
}
