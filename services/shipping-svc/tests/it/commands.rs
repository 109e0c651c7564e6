//! Commands in every order that Kafka can deliver them in.
//!
//! Rule "Fold": effects come only from the rows that the insert gave, whoever else is at them.
//! Rule "Duplicates": the stored answer, byte for byte.

use rand::seq::IndexedRandom;
use serde_json::Value;
use testkit::Env;
use testkit::participant::{deliver, deliver_in_batches, deliver_to_replicas, rows, said};
use uuid::Uuid;

use crate::{REFUSED, TABLES, cancel, cancelled, failed, handler, schedule, scheduled, state};

#[tokio::test]
async fn a_duplicate_booking_gets_the_stored_answer_byte_for_byte() {
    let env = Env::bare("shipping");
    let handler = handler(&env).await;
    let order = Uuid::now_v7();
    let first = deliver(&handler, &[schedule(order, "FR"), schedule(order, "FR")]).await;
    assert_eq!(said(&first), [scheduled()], "two of the same in one batch are answered once");
    assert_eq!(first[0].id, saga::ids::reply_id(order, "shipping"));
    let value: Value = serde_json::from_slice(&first[0].payload).expect("JSON");
    assert_eq!(value["trackingCode"].as_str().map(str::len), Some(14), "{value}");
    assert_eq!(deliver(&handler, &[schedule(order, "FR")]).await, first);
}

#[tokio::test]
async fn a_country_that_is_not_served_fails_and_its_undo_is_answered() {
    let env = Env::bare("shipping");
    let handler = handler(&env).await;
    let order = Uuid::now_v7();
    let answers = deliver(&handler, &[schedule(order, "AQ")]).await;
    assert_eq!(said(&answers), [failed("country AQ is not served")]);
    assert_eq!(said(&deliver(&handler, &[cancel(order)]).await), [cancelled()]);
    assert_eq!(deliver(&handler, &[schedule(order, "AQ")]).await, answers);
    assert_eq!(state(&env, order).await, "FAILED");
}

#[tokio::test]
async fn a_booking_is_cancelled_once_and_both_answers_stay_the_same() {
    let env = Env::bare("shipping");
    let handler = handler(&env).await;
    let order = Uuid::now_v7();
    let first = deliver(&handler, &[schedule(order, "FR")]).await;
    let undone = deliver(&handler, &[cancel(order)]).await;
    assert_eq!(undone[0].id, saga::ids::undo_reply_id(order, "shipping"));
    let again = deliver(&handler, &[schedule(order, "FR"), cancel(order), cancel(order)]).await;
    assert_eq!(again, [first, undone].concat());
    assert_eq!(state(&env, order).await, "CANCELLED");
}

#[tokio::test]
async fn an_undo_before_its_command_refuses_the_command_for_ever() {
    let env = Env::bare("shipping");
    let handler = handler(&env).await;
    let (later, same, forth) = (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
    assert_eq!(said(&deliver(&handler, &[cancel(later)]).await), [cancelled()]);
    let batch = [
        cancel(same),
        schedule(later, "FR"),
        schedule(forth, "FR"),
        schedule(same, "FR"),
        cancel(forth),
        cancel(later),
    ];
    let answers = deliver(&handler, &batch).await;
    let expected = [cancelled(), failed(REFUSED), scheduled(), failed(REFUSED), cancelled(), cancelled()];
    assert_eq!(said(&answers), expected);
    assert_eq!(state(&env, later).await, "REFUSED");
    assert_eq!(state(&env, forth).await, "CANCELLED");
}

/// What Kafka may do to a group: any batches, anything again, several replicas at the same messages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_at_the_same_messages_book_and_cancel_once() {
    let env = Env::bare("shipping");
    handler(&env).await;
    let pool = env.pool("shipping");
    let mut rng = testkit::rng();
    let orders: Vec<Uuid> = (0..50).map(|_| Uuid::now_v7()).collect();
    // The replicas may interleave a command and its undo differently, so that each order has a fixed first message.
    let mut log: Vec<_> =
        orders.iter().enumerate().map(|(n, o)| if n % 5 == 0 { cancel(*o) } else { schedule(*o, "FR") }).collect();
    let mut replicas = Vec::new();
    for size in [3, 11, 50, 25] {
        replicas.push((handler(&env).await, size));
    }
    let all = deliver_to_replicas(replicas, &log).await;
    assert!(all.iter().all(|answers| answers == &all[0]), "every replica gives the same answers");

    let handler = handler(&env).await;
    for _ in 0..100 {
        let order = *orders.choose(&mut rng).expect("orders");
        log.push([schedule(order, "FR"), cancel(order)].choose(&mut rng).expect("two").clone());
    }
    let first = deliver_in_batches(&handler, &log, 7).await;
    let before = rows(&pool, TABLES).await;
    for answer in deliver(&handler, &log).await {
        assert!(first.contains(&answer));
    }
    assert_eq!(rows(&pool, TABLES).await, before);
}

#[tokio::test]
async fn the_database_refuses_what_the_code_must_not_do() {
    let env = Env::bare("shipping");
    let handler = handler(&env).await;
    deliver(&handler, &[schedule(Uuid::now_v7(), "FR")]).await;
    for (sql, refusal) in [
        ("UPDATE shipments SET state = 'CANCELLED'", "shipments_undo"),
        ("UPDATE shipments SET state = 'FAILED'", "shipments_"),
        ("UPDATE shipments SET tracking_code = 'X'", "permission denied"),
        ("DELETE FROM shipments", "permission denied"),
    ] {
        let error = sqlx::query(sql).execute(&env.role_pool("shipping")).await.expect_err("the database refuses");
        assert!(error.to_string().contains(refusal), "{sql}: {error}");
    }
}
