//! Messages in every order that Kafka can deliver them in.
//!
//! Rule "Fold": effects come only from the rows that the insert gave, whoever else is at them.
//! Rule "Duplicates": the stored answer, byte for byte.

use rand::Rng;
use rand::RngExt;
use rand::seq::IndexedRandom;
use testkit::Env;
use testkit::participant::{deliver, deliver_to_replicas, rows, said};
use uuid::Uuid;

use crate::{
    REFUSED, TABLES, astray, completed, handler, heaps, leave, rejected, release, released, reserve, reserved,
};

#[tokio::test]
async fn a_unit_on_two_lines_is_summed_and_a_duplicate_gets_the_stored_answer_byte_for_byte() {
    let env = Env::bare("inventory");
    let handler = handler(&env).await;
    let pool = env.pool("inventory");
    let order = Uuid::now_v7();
    let command = reserve(order, &[("SKU-002", 2), ("SKU-001", 1), ("SKU-002", 3)]);
    let first = deliver(&handler, &[command.clone(), command.clone()]).await;
    assert_eq!(said(&first), [reserved()], "two of the same in one batch are answered once");
    assert_eq!(first[0].id, saga::ids::reply_id(order, "inventory"));
    assert_eq!(deliver(&handler, &[command]).await, first);
    assert_eq!(heaps(&pool, "SKU-001").await, (999_999, 1, 0));
    assert_eq!(heaps(&pool, "SKU-002").await, (999_995, 5, 0));
}

#[tokio::test]
async fn orders_of_a_batch_are_decided_in_their_order_and_take_all_lines_or_none() {
    let env = Env::bare("inventory");
    let handler = handler(&env).await;
    let pool = env.pool("inventory");
    leave(&pool, "SKU-001", 5).await;
    let orders: Vec<Uuid> = (0..4).map(|_| Uuid::now_v7()).collect();
    let answers = deliver(
        &handler,
        &[
            reserve(orders[3], &[("SKU-001", 3)]),
            reserve(orders[2], &[("SKU-002", 1), ("SKU-001", 3)]),
            reserve(orders[1], &[("SKU-001", 1), ("SKU-999", 1)]),
            reserve(orders[0], &[("SKU-001", 2)]),
        ],
    )
    .await;
    let short = rejected("not enough stock of SKU-001: 3 asked for, 2 available");
    assert_eq!(said(&answers), [reserved(), short, rejected("unknown SKU SKU-999"), reserved()]);
    assert_eq!(heaps(&pool, "SKU-001").await, (0, 5, 0));
    assert_eq!(heaps(&pool, "SKU-002").await, (1_000_000, 0, 0));
    assert_eq!(
        said(&deliver(&handler, &orders.iter().map(|o| release(*o)).collect::<Vec<_>>()).await),
        vec![released(); 4]
    );
    assert_eq!(heaps(&pool, "SKU-001").await, (5, 0, 0));
}

#[tokio::test]
async fn a_reservation_is_released_once_and_both_answers_stay_the_same() {
    let env = Env::bare("inventory");
    let handler = handler(&env).await;
    let pool = env.pool("inventory");
    let order = Uuid::now_v7();
    let first = deliver(&handler, &[reserve(order, &[("SKU-001", 4)])]).await;
    let undone = deliver(&handler, &[release(order)]).await;
    assert_eq!(undone[0].id, saga::ids::undo_reply_id(order, "inventory"));
    let again = deliver(&handler, &[release(order), reserve(order, &[("SKU-001", 4)]), release(order)]).await;
    assert_eq!(again, [undone, first].concat());
    assert_eq!(heaps(&pool, "SKU-001").await, (1_000_000, 0, 0));
}

#[tokio::test]
async fn an_undo_before_its_command_refuses_the_command_for_ever() {
    let env = Env::bare("inventory");
    let handler = handler(&env).await;
    let (later, same, forth) = (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
    let line = [("SKU-001", 4)];
    assert_eq!(said(&deliver(&handler, &[release(later)]).await), [released()]);
    let batch = [release(same), reserve(later, &line), reserve(forth, &line), reserve(same, &line), release(forth)];
    let answers = deliver(&handler, &batch).await;
    assert_eq!(said(&answers), [released(), rejected(REFUSED), reserved(), rejected(REFUSED), released()]);
    assert_eq!(heaps(&env.pool("inventory"), "SKU-001").await, (1_000_000, 0, 0));
}

/// Rule "End events".
#[tokio::test]
async fn a_completed_order_ships_what_it_holds_once_and_any_other_changes_nothing() {
    let env = Env::bare("inventory");
    let handler = handler(&env).await;
    let pool = env.pool("inventory");
    let (good, undone, unknown) = (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
    deliver(&handler, &[reserve(good, &[("SKU-001", 4)]), reserve(undone, &[("SKU-001", 7)]), release(undone)]).await;
    for _ in 0..2 {
        assert_eq!(
            deliver(&handler, &[completed(good), completed(undone), completed(unknown), completed(good)]).await,
            []
        );
        assert_eq!(heaps(&pool, "SKU-001").await, (999_996, 0, 4));
    }
    // A release that contradicts the end is answered, and the pieces stay gone.
    assert_eq!(said(&deliver(&handler, &[release(good)]).await), [released()]);
    assert_eq!(heaps(&pool, "SKU-001").await, (999_996, 0, 4));
    assert_eq!(astray(&pool).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_batch_writes_each_reservation_and_each_unit_once() {
    let env = Env::bare("inventory");
    let handler = handler(&env).await;
    let pool = env.pool("inventory");
    let orders: Vec<Uuid> = (0..100).map(|_| Uuid::now_v7()).collect();
    let batch: Vec<_> = orders.iter().map(|order| reserve(*order, &[("SKU-001", 1), ("SKU-002", 1)])).collect();
    let writes = async || -> i64 {
        let sql = "SELECT sum(n_tup_ins + n_tup_upd + n_tup_del)::bigint FROM pg_stat_user_tables
                   WHERE relname NOT LIKE '\\_sqlx%'";
        sqlx::query_scalar(sql).fetch_one(&pool).await.expect("statistics")
    };
    let before = writes().await;
    deliver(&handler, &batch).await;
    deliver(&handler, &batch).await;
    let ends: Vec<_> = orders.iter().map(|order| completed(*order)).collect();
    deliver(&handler, &ends).await;
    deliver(&handler, &ends).await;
    let expected = before + 100 + 2 + 100 + 2;
    let limit = std::time::Duration::from_secs(10);
    testkit::wait_until("the backends report", limit, async || writes().await >= expected).await;
    assert_eq!(writes().await, expected);
}

/// What Kafka may do to a group: any batches, anything again, several replicas at the same messages. A completion comes
/// only for an order whose reservation was answered, as the saga sees to; a release never comes after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_at_the_same_messages_move_every_piece_once() {
    let env = Env::bare("inventory");
    handler(&env).await;
    let pool = env.pool("inventory");
    let mut rng = testkit::rng();
    for sku in ["SKU-001", "SKU-002", "SKU-003"] {
        leave(&pool, sku, 60).await;
    }
    let mut log = Vec::new();
    for _ in 0..120 {
        let order = Uuid::now_v7();
        let skus = ["SKU-001", "SKU-002", "SKU-003", "SKU-999"];
        let sku = |rng: &mut dyn Rng| skus[rng.random_range(0..100) * skus.len() / 101];
        let lines = [(sku(&mut rng), rng.random_range(1..4)), (sku(&mut rng), rng.random_range(1..4))];
        log.push(reserve(order, &lines));
        if rng.random_bool(0.4) {
            log.push(release(order));
            log.push([reserve(order, &lines), release(order)].choose(&mut rng).expect("two").clone());
        } else {
            log.push(completed(order));
        }
    }
    let mut replicas = Vec::new();
    for size in [3, 11, 40, 25] {
        replicas.push((handler(&env).await, size));
    }
    let mut all = deliver_to_replicas(replicas, &log).await;
    let last = all.pop().expect("four replicas");
    for answer in all.iter().flatten() {
        assert!(last.contains(answer), "every replica gives the same answers");
    }
    assert_eq!(astray(&pool).await, Vec::<String>::new());

    let before = rows(&pool, TABLES).await;
    let states = ["SHIPPED", "RELEASED", "REJECTED"];
    assert!(states.iter().all(|state| before.iter().any(|row| row.contains(state))), "the test tried them all");
    let handler = handler(&env).await;
    for answer in deliver(&handler, &log).await {
        assert!(last.contains(&answer));
    }
    assert_eq!(rows(&pool, TABLES).await, before);
}
