//! Each end that an order can have.

use serde_json::{Value, json};
use testkit::{Cluster, Env, order, order_with, wait_until};

use crate::stand::{SOON, assert_clean, number, path};

#[tokio::test(flavor = "multi_thread")]
async fn an_order_ends_as_its_payment_its_stock_and_its_address_allow() {
    let env = Env::new("ends").await;
    let cluster = env.cluster().start().await;
    let before = cluster.get("inventory-svc", "/api/stock/SKU-001").await;

    let good = cluster.place(&order()).await;
    let end = cluster.ended(good, SOON).await;
    assert_eq!(end["status"], "COMPLETED", "{end}");
    assert_eq!(
        path(&cluster.saga(good).await),
        ["STARTED", "STEP_SUCCEEDED payment", "STEP_SUCCEEDED inventory", "STEP_SUCCEEDED shipping"]
    );
    let payment = cluster.get("payment-svc", &format!("/api/payments/{good}")).await;
    assert_eq!((&payment["state"], &payment["charged"]), (&json!("CHARGED"), &json!(3998)));
    wait_until("the goods to be shipped", SOON, async || shipped(&cluster, &before).await == 2).await;

    // Each of these is undone as far as it got.
    let short = json!([{ "sku": "SKU-002", "quantity": 4, "unitPrice": 100 }]);
    let stock = cluster.client().put(format!("{}/api/stock/SKU-002", cluster.service("inventory-svc").url()));
    assert!(stock.json(&json!({ "available": 3 })).send().await.expect("an answer").status().is_success());
    for (what, order, states) in [
        ("declined", order_with("/payment/token", "tok_declined"), ["DECLINED", "", ""]),
        ("unknown SKU", order_with("/items/0/sku", "SKU-NOWHERE"), ["REFUNDED", "REJECTED", ""]),
        ("short stock", order_with("/items", short), ["REFUNDED", "REJECTED", ""]),
        ("not served", order_with("/shipping/country", "AQ"), ["REFUNDED", "RELEASED", "FAILED"]),
    ] {
        let id = cluster.place(&order).await;
        let end = cluster.ended(id, SOON).await;
        assert_eq!(end["status"], "CANCELLED", "{what}: {end}");
        assert!(end["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{what}: {end}");
        for (table, database, expected) in [
            ("SELECT state FROM payments WHERE order_id = $1", "payment", states[0]),
            ("SELECT state FROM reservations WHERE order_id = $1", "inventory", states[1]),
            ("SELECT state FROM shipments WHERE order_id = $1", "shipping", states[2]),
        ] {
            let state: Option<String> =
                sqlx::query_scalar(table).bind(id).fetch_optional(&env.pool(database)).await.expect("a state");
            assert_eq!(state.unwrap_or_default(), expected, "{what}: {database}");
        }
    }

    assert_eq!(shipped(&cluster, &before).await, 2, "only the good order took goods");
    let reserved = "SELECT sum(reserved)::bigint FROM stock";
    assert_eq!(number(&env, "inventory", reserved).await, 0, "nothing stays set aside");
    let net = "SELECT sum(CASE kind WHEN 'CHARGE' THEN amount ELSE -amount END)::bigint FROM ledger_entries";
    assert_eq!(number(&env, "payment", net).await, 3998, "only the good order is paid");
    assert_eq!(number(&env, "shipping", "SELECT count(*) FROM shipments WHERE state = 'SCHEDULED'").await, 1);
    let ledger = cluster.get("payment-svc", "/api/payments/ledger").await;
    let balances = ledger["accounts"].as_array().expect("accounts").iter();
    assert_eq!(balances.filter_map(|account| account["balance"].as_i64()).sum::<i64>(), 0, "{ledger}");
    assert_clean(&env).await;
}

/// How many pieces of SKU-001 went out since `before`.
async fn shipped(cluster: &Cluster<'_>, before: &Value) -> i64 {
    let now = cluster.get("inventory-svc", "/api/stock/SKU-001").await;
    let count = |stock: &Value| stock["shipped"].as_i64().expect("a number");
    count(&now) - count(before)
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_complete_while_nobody_is_told_and_everybody_is_told_later() {
    let env = Env::new("notifications").await;
    let cluster = env.cluster().start().await;
    cluster.service("notification-svc").stop().await;
    let mut orders = Vec::new();
    for _ in 0..5 {
        orders.push(cluster.place(&order()).await);
    }
    for id in &orders {
        assert_eq!(cluster.ended(*id, SOON).await["status"], "COMPLETED");
    }
    let told = "SELECT count(*) FROM notifications";
    assert_eq!(number(&env, "notification", told).await, 0);
    cluster.service("notification-svc").start().await;
    wait_until("everybody to be told", SOON, async || number(&env, "notification", told).await == 5).await;
    assert_clean(&env).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_idempotency_key_is_one_order_whatever_becomes_of_the_answer() {
    let env = Env::new("keys").await;
    let cluster = env.cluster().start().await;
    let url = format!("{}/api/orders", cluster.service("order-api").url());
    let post = || cluster.client().post(&url).header("Idempotency-Key", "one").json(&order()).send();
    // At once, then again: every answer that is an order is the same one.
    let answers = tokio::join!(post(), post(), post());
    let mut ids = std::collections::BTreeSet::new();
    for answer in [answers.0, answers.1, answers.2, post().await] {
        let answer = answer.expect("an answer");
        let status = answer.status().as_u16();
        let body: Value = answer.json().await.expect("JSON");
        match status {
            202 => drop(ids.insert(body["orderId"].as_str().expect("an id").to_owned())),
            409 => {}
            _ => panic!("{status} {body}"),
        }
    }
    assert_eq!(ids.len(), 1);
    let changed = order_with("/items/0/quantity", 9);
    let other = cluster.client().post(&url).header("Idempotency-Key", "one").json(&changed).send().await;
    assert_eq!(other.expect("an answer").status(), 422);
    assert_eq!(number(&env, "orders", "SELECT count(*) FROM orders").await, 1);
}
