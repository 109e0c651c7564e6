//! A payment that answers after everybody has stopped waiting.

use testkit::{Env, order_with, wait_until};

use crate::stand::{SOON, assert_clean, impatient, number, path};

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_after_the_last_attempt_changes_nothing() {
    let env = Env::new("slow").await;
    // The rules of the real definition, in seconds instead of minutes.
    let sagas = impatient(&env, &[("  deadline: 15s\n  attempts: 4", "  deadline: 1s\n  attempts: 4")]);
    let cluster = env
        .cluster()
        .set("orchestrator", "SAGAS_DIR", sagas)
        .set("payment-svc", "PAYMENT_SLOW_ANSWER_SECONDS", 8)
        .start()
        .await;
    let id = cluster.place(&order_with("/payment/token", "tok_slow")).await;
    let end = cluster.ended(id, SOON).await;
    assert_eq!(end["status"], "CANCELLED", "{end}");
    let saga = cluster.saga(id).await;
    assert_eq!(
        path(&saga),
        [
            "STARTED",
            "STEP_RETRIED payment",
            "STEP_RETRIED payment",
            "STEP_RETRIED payment",
            "STEP_TIMED_OUT payment",
            "STEP_UNDONE payment"
        ]
    );
    // The undo has called the answer off.
    assert_eq!(number(&env, "payment", "SELECT count(*) FROM slow_charges").await, 0);
    assert_eq!(
        number(&env, "payment", "SELECT count(*) FROM payments WHERE state = 'REFUNDED'").await
            + number(&env, "payment", "SELECT count(*) FROM payments WHERE state = 'REFUSED'").await,
        1
    );

    // One that comes all the same, by a message that was on its way, is late and changes nothing.
    let undone =
        env.await_message("payment.refunded", |record| record.key.as_deref() == Some(id.to_string().as_bytes()));
    let mut late = undone.await;
    late.payload = Some(
        serde_json::json!({ "orderId": id, "paymentId": id, "amount": 3998, "currency": "EUR" })
            .to_string()
            .into_bytes(),
    );
    let command = saga::ids::command_id(id, "payment").to_string();
    let answer = saga::ids::reply_id(id, "payment").to_string();
    for (name, value) in &mut late.headers {
        match name.as_str() {
            "ce_type" => *value = Some(b"com.chaossymphony.payment.successful.v1".to_vec()),
            "ce_id" => *value = Some(answer.clone().into_bytes()),
            "ce_causationid" => *value = Some(command.clone().into_bytes()),
            _ => {}
        }
    }
    let kafka = env.kafka();
    messaging::admin::produce(&kafka.bootstrap_servers, &kafka.topic("payment.successful"), &[late])
        .await
        .expect("sent");
    let (group, topics) = (kafka.group("orchestrator"), [kafka.topic("payment.successful")]);
    wait_until("the late answer to be taken", SOON, async || {
        let offsets = messaging::admin::group_offsets(&kafka.bootstrap_servers, &group, &topics);
        offsets.await.expect("offsets").values().sum::<i64>() == 1
    })
    .await;
    assert_eq!(path(&cluster.saga(id).await), path(&saga));
    assert!(env.read_topic("payment.successful.dlq").await.is_empty(), "late is not poison");
    let now = cluster.get("order-api", &format!("/api/orders/{id}")).await;
    assert_eq!((&now["status"], &now["updatedAt"]), (&end["status"], &end["updatedAt"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_payment_within_the_patience_completes_the_order() {
    let env = Env::new("patient").await;
    let cluster = env.cluster().set("payment-svc", "PAYMENT_SLOW_ANSWER_SECONDS", 2).start().await;
    let id = cluster.place(&order_with("/payment/token", "tok_slow")).await;
    assert_eq!(cluster.ended(id, SOON).await["status"], "COMPLETED");
    assert_clean(&env).await;
}
