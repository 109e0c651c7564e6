//! What nobody should send to `POST /api/orders`.

use serde_json::{Value, json};
use testkit::{Env, order, order_with};

use crate::stand::number;

/// An order as text with one of its values replaced by any text.
fn raw(pointer: &str, text: &str) -> String {
    const HOLE: &str = "\"the hole\"";
    order_with(pointer, "the hole").to_string().replace(HOLE, text)
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_input_is_told_what_is_wrong_with_it_and_leaves_no_row() {
    let env = Env::new("order-api").await;
    let api = env.start_service("order-api", &[]).await;
    let client = reqwest::Client::new();
    let deep = format!("{}{}", "[".repeat(1_000), "]".repeat(1_000));
    let huge = raw("/shipping/street", &format!("\"{}\"", "x".repeat(65 * 1024)));
    let overflowing = json!([
        { "sku": "SKU-001", "quantity": 1000, "unitPrice": i64::MAX / 2 },
        { "sku": "SKU-002", "quantity": 1000, "unitPrice": i64::MAX / 2 }
    ]);
    // What is sent, the status that answers it, and what the answer must name.
    let cases: Vec<(&str, String, &[u16], &str)> = vec![
        ("malformed JSON", "{\"customerId\": ".into(), &[400], ""),
        ("no JSON at all", "\u{1}\u{2}".into(), &[400], ""),
        ("an empty body", String::new(), &[400], ""),
        ("65 KiB", huge, &[413], ""),
        ("depth 1,000", raw("/items", &deep), &[400, 422], ""),
        ("a text for a number", raw("/items/0/quantity", "\"two\""), &[400, 422], "quantity"),
        ("a number for a text", raw("/customerId", "7"), &[400, 422], "customerId"),
        ("NaN", raw("/items/0/unitPrice", "NaN"), &[400], ""),
        ("a fraction of a cent", raw("/items/0/unitPrice", "19.99"), &[400, 422], "unitPrice"),
        ("a negative price", raw("/items/0/unitPrice", "-1"), &[422], "/items/0/unitPrice"),
        ("a price of nothing", raw("/items/0/unitPrice", "0"), &[422], "/items/0/unitPrice"),
        ("an amount beyond 64 bits", raw("/items/0/unitPrice", "99999999999999999999"), &[400, 422], "unitPrice"),
        ("an overflowing total", order_with("/items", overflowing).to_string(), &[422], "/items"),
        ("a quantity of nothing", raw("/items/0/quantity", "0"), &[422], "/items/0/quantity"),
        ("a quantity of 1,001", raw("/items/0/quantity", "1001"), &[422], "/items/0/quantity"),
        ("no items", raw("/items", "[]"), &[422], "/items"),
        ("an unknown currency", raw("/currency", "\"XXY\""), &[422], "/currency"),
        ("an unknown country", raw("/shipping/country", "\"QQ\""), &[422], "/shipping/country"),
        ("NUL in a text", raw("/customerId", "\"c\\u0000\""), &[400, 422], "customerId"),
        ("a lone surrogate", raw("/shipping/name", "\"\\ud800\""), &[400, 422], ""),
        (
            "a key too many characters long",
            raw("/items/0/sku", &format!("\"{}\"", "s".repeat(65))),
            &[422],
            "/items/0/sku",
        ),
        ("nothing at all", "{}".into(), &[400, 422], ""),
    ];
    for (what, body, statuses, named) in cases {
        let request = client.post(format!("{}/api/orders", api.url())).header("Content-Type", "application/json");
        let response = request.body(body).send().await.unwrap_or_else(|error| panic!("{what}: {error}"));
        let status = response.status().as_u16();
        let content_type =
            response.headers().get("content-type").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let problem = response.text().await.expect("a body");
        assert!(statuses.contains(&status), "{what}: {status} {problem}");
        assert_eq!(content_type.as_deref(), Some("application/problem+json"), "{what}");
        let parsed: Value = serde_json::from_str(&problem).expect("a problem");
        assert!(parsed["type"].as_str().is_some_and(|kind| kind.starts_with("http")), "{what}: {problem}");
        assert!(problem.contains(named), "{what} does not name {named}: {problem}");
    }

    let several = {
        let mut order = order_with("/currency", "XXY");
        order["items"][0]["quantity"] = json!(0);
        order["shipping"]["country"] = json!("QQ");
        order
    };
    let response = client.post(format!("{}/api/orders", api.url())).json(&several).send().await.expect("an answer");
    let problem: Value = response.json().await.expect("a problem");
    for pointer in ["/currency", "/items/0/quantity", "/shipping/country"] {
        let errors = problem["errors"].as_array().expect("errors");
        assert!(errors.iter().any(|error| error["pointer"] == pointer), "{pointer} is not named: {problem}");
    }

    let plain = client.post(format!("{}/api/orders", api.url())).header("Content-Type", "text/plain");
    assert_eq!(plain.body(order().to_string()).send().await.expect("an answer").status(), 415);
    let key = client.post(format!("{}/api/orders", api.url())).header("Idempotency-Key", "k".repeat(256));
    assert!(key.json(&order()).send().await.expect("an answer").status().is_client_error());

    for table in
        ["SELECT count(*) FROM orders", "SELECT count(*) FROM order_items", "SELECT count(*) FROM order_outbox"]
    {
        assert_eq!(number(&env, "orders", table).await, 0, "{table}");
    }
}
