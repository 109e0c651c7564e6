//! The program as it is shipped, over Kafka and HTTP.

use messaging::Outgoing;
use serde_json::{Value, json};
use testkit::Env;
use uuid::Uuid;

use crate::{charge, refund};

async fn get(url: String) -> (u16, Value) {
    let response = reqwest::get(url).await.expect("an answer");
    (response.status().as_u16(), response.json().await.expect("JSON"))
}

#[tokio::test]
async fn bytes_that_nobody_understands_are_dead_letters_and_their_neighbours_are_answered() {
    let env = Env::new("payment").await;
    let service = env.start_service("payment-svc", &[("PAYMENT_SLOW_ANSWER_SECONDS", "1")]).await;
    let (good, slow, undone) = (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
    let broken = |payload: &str| Outgoing { payload: payload.into(), ..charge(Uuid::now_v7(), "tok_ok") };
    let poisons = [
        (broken("\u{1}\u{2}"), "invalid-json"),
        (broken("{\"orderId\":"), "invalid-json"),
        (broken("{}"), "invalid-json"),
        (charge(good, "tok_ok"), "subject-mismatch"),
        (Outgoing { step: None, ..charge(Uuid::now_v7(), "tok_ok") }, "missing-header"),
        (Outgoing { payload: b"[]".to_vec(), ..refund(Uuid::now_v7()) }, "invalid-json"),
        (charge(Uuid::now_v7(), "tok_ok"), "invalid-amount"),
    ];
    let mut sent = Vec::new();
    for (mut message, reason) in poisons {
        if reason == "subject-mismatch" {
            (message.key, message.subject) = ("another".to_owned(), "another".to_owned());
        }
        if reason == "invalid-amount" {
            let order = message.saga_id;
            let data = json!({ "orderId": order, "amount": 0, "currency": "EUR", "token": "tok_ok" });
            message.payload = data.to_string().into_bytes();
        }
        sent.push((message, reason));
    }
    let mut all: Vec<Outgoing> = sent.iter().map(|(message, _)| message.clone()).collect();
    all.insert(3, charge(good, "tok_ok"));
    all.extend([charge(slow, "tok_slow"), charge(undone, "tok_ok")]);
    env.send_all(&all).await;

    for order in [good, slow, undone] {
        env.await_message("payment.successful", |r| r.key == Some(order.to_string().into_bytes())).await;
    }
    env.send(refund(undone)).await;
    env.await_message("payment.refunded", |r| r.key == Some(undone.to_string().into_bytes())).await;
    for (message, reason) in &sent {
        let topic = format!("{}.dlq", message.topic);
        let letter = env.await_message(&topic, |r| r.header("ce_id") == Some(message.id.to_string().as_str())).await;
        assert_eq!(letter.header("dlq-reason"), Some(*reason));
        assert_eq!(letter.payload.as_ref(), Some(&message.payload));
    }

    let url = |path: &str| format!("{}/api/payments/{path}", service.url());
    let view = |order: Uuid, state: &str, charged: i64, refunded: i64| {
        let value =
            json!({ "orderId": order, "state": state, "charged": charged, "refunded": refunded, "currency": "EUR" });
        (200, value)
    };
    assert_eq!(get(url(&good.to_string())).await, view(good, "CHARGED", 3998, 0));
    assert_eq!(get(url(&slow.to_string())).await, view(slow, "CHARGED", 3998, 0));
    assert_eq!(get(url(&undone.to_string())).await, view(undone, "REFUNDED", 3998, 3998));
    let (status, problem) = get(url(&Uuid::now_v7().to_string())).await;
    assert_eq!((status, problem["type"].as_str()), (404, Some("https://chaossymphony.dev/problems/not-found")));
    assert_eq!(get(url("seven")).await.0, 400);
    let accounts = json!({ "accounts": [
        { "account": "receivable", "currency": "EUR", "balance": 2 * 3998 },
        { "account": "revenue", "currency": "EUR", "balance": -2 * 3998 },
    ] });
    assert_eq!(get(url("ledger")).await, (200, accounts));
}
