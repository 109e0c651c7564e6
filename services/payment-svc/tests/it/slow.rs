//! Charges that are answered later.
//!
//! Rule "No Kafka input, no redelivery": the answer is a row that is due until its message is acknowledged.

use std::time::Duration;

use messaging::{CancellationToken, Producer};
use payment_svc::commands::{PaymentCommands, slow};
use testkit::Env;
use testkit::participant::deliver;
use uuid::Uuid;

use crate::{REFUSED, books, charge, charged, failed, handler, refund, refunded, said};

async fn due_rows(env: &Env) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM slow_charges").fetch_one(&env.pool("payment")).await.expect("a count")
}

#[tokio::test]
async fn a_slow_charge_is_due_90_seconds_after_its_first_command_and_says_nothing_until_then() {
    let env = Env::bare("payment");
    let handler = handler(&env).await;
    let order = Uuid::now_v7();
    assert_eq!(deliver(&handler, &[charge(order, "tok_slow")]).await, []);
    let due = "SELECT due_at, extract(epoch FROM due_at - now())::float8 FROM slow_charges";
    let pool = env.pool("payment");
    let first: (chrono::DateTime<chrono::Utc>, f64) = sqlx::query_as(due).fetch_one(&pool).await.expect("a row");
    assert!((80.0..=90.0).contains(&first.1), "{first:?}");

    assert_eq!(deliver(&handler, &[charge(order, "tok_slow"), charge(order, "tok_slow")]).await, []);
    let second: (chrono::DateTime<chrono::Utc>, f64) = sqlx::query_as(due).fetch_one(&pool).await.expect("a row");
    assert_eq!(second.0, first.0);
    assert_eq!(books(&pool, order).await, ("PENDING".to_owned(), 0, 0));
}

#[tokio::test]
async fn an_undo_cancels_a_slow_charge_in_a_later_batch_or_the_same() {
    let env = Env::bare("payment");
    let handler = handler(&env).await;
    let (later, same) = (Uuid::now_v7(), Uuid::now_v7());
    deliver(&handler, &[charge(later, "tok_slow")]).await;
    let answers = deliver(&handler, &[charge(same, "tok_slow"), refund(same), refund(later)]).await;
    // Undone, it has an answer after all, and the command of the same batch gets it.
    assert_eq!(said(&answers), [failed(REFUSED), refunded(0), refunded(0)]);
    assert_eq!(said(&deliver(&handler, &[charge(later, "tok_slow")]).await), [failed(REFUSED)]);
    assert_eq!(due_rows(&env).await, 0);
    for order in [later, same] {
        assert_eq!(books(&env.pool("payment"), order).await, ("REFUSED".to_owned(), 0, 0));
    }
}

#[tokio::test]
async fn a_due_charge_is_made_once_answered_and_then_forgotten() {
    let env = Env::new("payment").await;
    let handler = PaymentCommands::new(env.role_pool("payment"), Duration::ZERO);
    let orders: Vec<Uuid> = (0..30).map(|_| Uuid::now_v7()).collect();
    let batch: Vec<_> = orders.iter().map(|order| charge(*order, "tok_slow")).collect();
    assert_eq!(deliver(&handler, &batch).await, []);

    // Two replicas look for what is due, while an undo comes for one.
    let stop = CancellationToken::new();
    // Tasks of a failed test end too.
    let _stopped = stop.clone().drop_guard();
    let mut replicas = tokio::task::JoinSet::new();
    for name in ["one", "two"] {
        let producer = Producer::new(&env.kafka(), name).expect("a producer");
        replicas.spawn(slow::answer_due(env.role_pool("payment"), producer, Duration::from_millis(20), stop.clone()));
    }
    let undone = deliver(&handler, &[refund(orders[0])]).await;
    testkit::wait_until("every answer was sent", Duration::from_secs(30), async || due_rows(&env).await == 0).await;
    stop.cancel();
    replicas.join_all().await;

    let sent = env.read_topic("payment.successful").await;
    for order in &orders[1..] {
        let answers = deliver(&handler, &[charge(*order, "tok_slow")]).await;
        assert_eq!(said(&answers), [charged()]);
        let copies: Vec<_> = sent.iter().filter(|r| r.key.as_deref() == Some(order.to_string().as_bytes())).collect();
        assert!(!copies.is_empty());
        for copy in copies {
            assert_eq!(copy.payload.as_ref(), Some(&answers[0].payload), "late or repeated, the answer is the same");
            assert_eq!(copy.header("ce_id"), Some(answers[0].id.to_string().as_str()));
            assert_eq!(
                copy.header("ce_causationid"),
                Some(saga::ids::command_id(*order, "payment").to_string().as_str())
            );
        }
        assert_eq!(books(&env.pool("payment"), *order).await, ("CHARGED".to_owned(), 1, 0));
    }
    // Whichever was faster, the net effect is zero.
    let (state, charges, refunds) = books(&env.pool("payment"), orders[0]).await;
    assert_eq!(charges, refunds);
    assert_eq!(said(&undone), [refunded(if state == "REFUNDED" { 3998 } else { 0 })]);
}

#[tokio::test]
async fn an_answer_that_was_charged_but_not_sent_before_a_crash_is_sent() {
    let env = Env::new("payment").await;
    let handler = PaymentCommands::new(env.role_pool("payment"), Duration::ZERO);
    let order = Uuid::now_v7();
    deliver(&handler, &[charge(order, "tok_slow")]).await;
    // The crash: the charge is committed, and nobody publishes.
    sqlx::query(slow::FIRE).bind(10_i64).execute(&env.role_pool("payment")).await.expect("a round");
    assert_eq!(books(&env.pool("payment"), order).await, ("CHARGED".to_owned(), 1, 0));

    let stop = CancellationToken::new();
    // Tasks of a failed test end too.
    let _stopped = stop.clone().drop_guard();
    let producer = Producer::new(&env.kafka(), "restarted").expect("a producer");
    let task = slow::answer_due(env.role_pool("payment"), producer, Duration::from_millis(20), stop.clone());
    let task = tokio::spawn(task);
    env.await_message("payment.successful", |record| record.key == Some(order.to_string().into_bytes())).await;
    stop.cancel();
    task.await.expect("the task ends");
    assert_eq!(books(&env.pool("payment"), order).await, ("CHARGED".to_owned(), 1, 0));
}

#[tokio::test]
async fn no_kafka_input_a_slow_answer_survives_a_crash_at_each_point_of_its_round() {
    for (point, copies) in [("timer-after-commit", 1), ("timer-before-settle", 2)] {
        let env = Env::new("payment").await;
        let fired = env.dir().join("fired");
        let service = env
            .start_service(
                "payment-svc",
                &[
                    ("PAYMENT_SLOW_ANSWER_SECONDS", "1"),
                    ("FAILPOINT", point),
                    ("FAILPOINT_FIRED", &fired.display().to_string()),
                ],
            )
            .await;
        let order = Uuid::now_v7();
        env.send(charge(order, "tok_slow")).await;
        service.wait_exit(Duration::from_secs(30)).await;
        assert!(fired.exists(), "{point}: it died of something else");
        assert_eq!(due_rows(&env).await, 1, "{point}: still to be sent");
        service.start().await;
        testkit::wait_until("the answer is settled", Duration::from_secs(30), async || due_rows(&env).await == 0).await;
        let sent = env.read_topic("payment.successful").await;
        assert_eq!(sent.len(), copies, "{point}");
        assert!(sent.iter().all(|copy| copy.payload == sent[0].payload && copy.headers == sent[0].headers), "{point}");
        assert_eq!(books(&env.pool("payment"), order).await, ("CHARGED".to_owned(), 1, 0));
    }
}
