//! Commands in every order that Kafka can deliver them in.
//!
//! Rule "Fold": effects come only from the rows that the insert gave, whoever else is at them.
//! Rule "Duplicates": the stored answer, byte for byte.

use rand::seq::IndexedRandom;
use testkit::Env;
use testkit::participant::{deliver, deliver_in_batches, deliver_to_replicas, rows};
use uuid::Uuid;

use crate::{REFUSED, TABLES, books, charge, charged, failed, handler, refund, refunded, said};

#[tokio::test]
async fn a_duplicate_charge_gets_the_stored_answer_byte_for_byte() {
    let env = Env::bare("payment");
    let handler = handler(&env).await;
    let command = charge(Uuid::now_v7(), "tok_ok");
    let order = command.saga_id.expect("a saga");

    let first = deliver(&handler, &[command.clone(), command.clone()]).await;
    assert_eq!(said(&first), [charged()], "two of the same in one batch are answered once");
    assert_eq!(first[0].id, saga::ids::reply_id(order, "payment"));
    assert_eq!(first[0].causation_id, Some(command.id));
    assert_eq!(deliver(&handler, &[command]).await, first);
    assert_eq!(books(&env.pool("payment"), order).await, ("CHARGED".to_owned(), 1, 0));
}

#[tokio::test]
async fn tokens_that_cannot_be_charged_are_declined_with_a_reason() {
    let env = Env::bare("payment");
    let handler = handler(&env).await;
    let orders = [Uuid::now_v7(), Uuid::now_v7()];
    let answers = deliver(&handler, &[charge(orders[0], "tok_declined"), charge(orders[1], "tok_nonsense")]).await;
    assert_eq!(said(&answers), [failed("payment declined"), failed("unknown payment token")]);

    let undone = deliver(&handler, &orders.map(refund)).await;
    assert_eq!(said(&undone), [refunded(0), refunded(0)]);
    assert_eq!(books(&env.pool("payment"), orders[0]).await, ("DECLINED".to_owned(), 0, 0));
}

#[tokio::test]
async fn a_charge_is_refunded_once_and_both_answers_stay_the_same() {
    let env = Env::bare("payment");
    let handler = handler(&env).await;
    let order = Uuid::now_v7();
    let first = deliver(&handler, &[charge(order, "tok_ok")]).await;
    let undone = deliver(&handler, &[refund(order)]).await;
    assert_eq!(said(&undone), [refunded(3998)]);
    assert_eq!(undone[0].id, saga::ids::undo_reply_id(order, "payment"));

    let again = deliver(&handler, &[charge(order, "tok_ok"), refund(order), refund(order)]).await;
    assert_eq!(again, [first, undone].concat());
    assert_eq!(books(&env.pool("payment"), order).await, ("REFUNDED".to_owned(), 1, 1));
}

#[tokio::test]
async fn an_undo_before_its_command_refuses_the_command_for_ever() {
    let env = Env::bare("payment");
    let handler = handler(&env).await;
    let order = Uuid::now_v7();
    let undone = deliver(&handler, &[refund(order)]).await;
    assert_eq!(said(&undone), [refunded(0)]);
    assert_eq!(said(&deliver(&handler, &[charge(order, "tok_ok")]).await), [failed(REFUSED)]);
    assert_eq!(deliver(&handler, &[refund(order)]).await, undone);
    assert_eq!(books(&env.pool("payment"), order).await, ("REFUSED".to_owned(), 0, 0));
}

#[tokio::test]
async fn a_command_and_its_undo_in_one_batch_are_applied_in_their_order() {
    let env = Env::bare("payment");
    let handler = handler(&env).await;
    let (forth, back) = (Uuid::now_v7(), Uuid::now_v7());
    let batch = [charge(forth, "tok_ok"), refund(back), refund(forth), charge(back, "tok_ok"), charge(forth, "tok_ok")];
    let answers = deliver(&handler, &batch).await;
    assert_eq!(said(&answers), [charged(), refunded(0), refunded(3998), failed(REFUSED)]);
    assert_eq!(books(&env.pool("payment"), forth).await, ("REFUNDED".to_owned(), 1, 1));
    assert_eq!(books(&env.pool("payment"), back).await, ("REFUSED".to_owned(), 0, 0));
}

/// What Kafka may do to a group: any batches, anything again, undos and commands in any order.
#[tokio::test]
async fn everything_delivered_again_changes_nothing_and_gets_the_same_answers() {
    let env = Env::bare("payment");
    let handler = handler(&env).await;
    let pool = env.pool("payment");
    let mut rng = testkit::rng();
    let orders: Vec<Uuid> = (0..40).map(|_| Uuid::now_v7()).collect();
    let mut log = Vec::new();
    for _ in 0..200 {
        let order = *orders.choose(&mut rng).expect("orders");
        let token = ["tok_ok", "tok_ok", "tok_declined"][order.as_bytes()[15] as usize % 3];
        log.push([charge(order, token), charge(order, token), refund(order)].choose(&mut rng).expect("three").clone());
    }
    let first = deliver_in_batches(&handler, &log, 7).await;
    let before = rows(&pool, TABLES).await;
    assert!(before.iter().any(|row| row.contains("REFUNDED")) && before.iter().any(|row| row.contains("REFUSED")));

    let all = deliver(&handler, &log).await;
    assert_eq!(rows(&pool, TABLES).await, before);
    for answer in &all {
        let earlier = first.iter().find(|earlier| earlier.id == answer.id);
        assert_eq!(earlier, Some(answer));
    }
}

/// Replicas that both believe that a partition is theirs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_at_the_same_messages_charge_and_refund_once() {
    let env = Env::bare("payment");
    handler(&env).await;
    let orders: Vec<Uuid> = (0..60).map(|_| Uuid::now_v7()).collect();
    let mut log: Vec<_> = orders.iter().map(|order| charge(*order, "tok_ok")).collect();
    log.extend(orders.iter().step_by(2).map(|order| refund(*order)));
    let mut replicas = Vec::new();
    for size in [5, 9, 90, 13] {
        replicas.push((handler(&env).await, size));
    }
    let all = deliver_to_replicas(replicas, &log).await;
    for answers in &all {
        assert_eq!(answers.len(), 90);
        for answer in answers {
            assert!(all[0].contains(answer), "every replica gives the same answers");
        }
    }
    let counts: Vec<(String, i64, i64)> =
        sqlx::query_as("SELECT kind, count(*), sum(amount)::bigint FROM ledger_entries GROUP BY kind ORDER BY kind")
            .fetch_all(&env.pool("payment"))
            .await
            .expect("a ledger");
    assert_eq!(counts, [("CHARGE".to_owned(), 60, 60 * 3998), ("REFUND".to_owned(), 30, 30 * 3998)]);
}
