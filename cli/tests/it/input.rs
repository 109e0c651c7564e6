//! What nobody should send to `POST /api/orders`.

use serde_json::{Value, json};
use testkit::{Env, order, order_with};

use crate::stand::number;

/// An order as text with one of its values replaced by any text.
fn raw(pointer: &str, text: &str) -> String {
    const HOLE: &str = "\"the hole\"";
    order_with(pointer, "the hole").to_string().replace(HOLE, text)
}

/// What an answer names: each place with the word for its kind.
fn fields(named: &[&str], kind: &str) -> Vec<(String, String)> {
    named.iter().map(|name| (kind.to_owned(), (*name).to_owned())).collect()
}

/// The status of a refusal, and the fields and parameters that its problem names.
async fn refused(what: &str, request: reqwest::RequestBuilder) -> (u16, Vec<(String, String)>) {
    let response = request.send().await.unwrap_or_else(|error| panic!("{what}: {error}"));
    let status = response.status().as_u16();
    assert_eq!(response.headers()["content-type"], "application/problem+json", "{what}");
    let problem: Value = response.json().await.unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(problem["type"].as_str().is_some_and(|kind| kind.starts_with("http")), "{what}: {problem}");
    assert_eq!(problem["status"], status, "{what}");
    let errors = problem["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
    assert!(errors.iter().all(|error| error["detail"].is_string()), "{what}: {problem}");
    let named = errors.iter().flat_map(|error| {
        let of = |kind: &str| Some((kind.to_owned(), error[kind].as_str()?.to_owned()));
        [of("pointer"), of("parameter")].into_iter().flatten()
    });
    (status, named.collect())
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
    let several = {
        let mut order = order_with("/currency", "XXY");
        order["items"][0]["quantity"] = json!(0);
        order["items"].as_array_mut().expect("items").push(json!({ "sku": "SKU-002", "quantity": 1, "unitPrice": -1 }));
        order["shipping"]["country"] = json!("QQ");
        order
    };
    // Where the parser gives up: its limit is 128 levels, of which the order's object is one.
    let deepest = format!("/items{}", "/0".repeat(126));
    let deepest = [deepest.as_str()];
    // What is sent, the status that answers it, and every field that the answer names.
    let cases: Vec<(&str, String, u16, &[&str])> = vec![
        ("malformed JSON", "{\"customerId\": ".into(), 400, &["/customerId"]),
        ("no JSON at all", "\u{1}\u{2}".into(), 400, &[]),
        ("an empty body", String::new(), 400, &[]),
        ("no object", "[]".into(), 422, &[""]),
        ("65 KiB", huge, 413, &[]),
        ("depth 1,000", raw("/items", &deep), 400, &deepest),
        ("a text for a number", raw("/items/0/quantity", "\"two\""), 422, &["/items/0/quantity"]),
        ("a number for a text", raw("/customerId", "7"), 422, &["/customerId"]),
        ("nothing for a text", raw("/payment/token", "null"), 422, &["/payment/token"]),
        ("an object for a list", raw("/items", "{}"), 422, &["/items"]),
        ("a list for an object", raw("/shipping", "[]"), 422, &["/shipping"]),
        ("a text for a line", raw("/items/0", "\"SKU-001\""), 422, &["/items/0"]),
        ("NaN", raw("/items/0/unitPrice", "NaN"), 400, &["/items/0/unitPrice"]),
        ("a fraction of a cent", raw("/items/0/unitPrice", "19.99"), 422, &["/items/0/unitPrice"]),
        ("a negative price", raw("/items/0/unitPrice", "-1"), 422, &["/items/0/unitPrice"]),
        ("a price of nothing", raw("/items/0/unitPrice", "0"), 422, &["/items/0/unitPrice"]),
        ("an amount beyond 64 bits", raw("/items/0/unitPrice", "99999999999999999999"), 422, &["/items/0/unitPrice"]),
        ("an amount below 64 bits", raw("/items/0/unitPrice", "-9223372036854775809"), 422, &["/items/0/unitPrice"]),
        ("an amount beyond any number", raw("/items/0/unitPrice", "1e999"), 400, &["/items/0/unitPrice"]),
        ("an overflowing total", order_with("/items", overflowing).to_string(), 422, &["/items"]),
        ("a negative quantity", raw("/items/0/quantity", "-2"), 422, &["/items/0/quantity"]),
        ("a quantity of nothing", raw("/items/0/quantity", "0"), 422, &["/items/0/quantity"]),
        ("a quantity of 1,001", raw("/items/0/quantity", "1001"), 422, &["/items/0/quantity"]),
        ("no items", raw("/items", "[]"), 422, &["/items"]),
        ("an unknown currency", raw("/currency", "\"XXY\""), 422, &["/currency"]),
        ("an unknown country", raw("/shipping/country", "\"QQ\""), 422, &["/shipping/country"]),
        ("NUL in a text", raw("/customerId", "\"c\\u0000\""), 422, &["/customerId"]),
        ("NUL deeper in", raw("/items/0/sku", "\"SKU-\\u0000\""), 422, &["/items/0/sku"]),
        ("a lone surrogate", raw("/shipping/name", "\"\\ud800\""), 400, &["/shipping/name"]),
        ("a lone low surrogate", raw("/payment/token", "\"\\udc00x\""), 400, &["/payment/token"]),
        ("an empty text", raw("/customerId", "\"\""), 422, &["/customerId"]),
        ("a name too long", raw("/items/0/sku", &format!("\"{}\"", "s".repeat(65))), 422, &["/items/0/sku"]),
        ("nothing at all", "{}".into(), 422, &["/customerId", "/currency", "/items", "/payment", "/shipping"]),
        (
            "several at once",
            several.to_string(),
            422,
            &["/currency", "/items/0/quantity", "/items/1/unitPrice", "/shipping/country"],
        ),
    ];
    let orders = format!("{}/api/orders", api.url());
    for (what, body, status, named) in cases {
        let request = client.post(&orders).header("Content-Type", "application/json").body(body);
        assert_eq!(refused(what, request).await, (status, fields(named, "pointer")), "{what}");
    }

    let plain = client.post(&orders).header("Content-Type", "text/plain").body(order().to_string());
    assert_eq!(refused("plain text", plain).await, (415, vec![]));
    let untyped = client.post(&orders).body(order().to_string());
    assert_eq!(refused("no type", untyped).await, (415, vec![]));
    let key = client.post(&orders).header("Idempotency-Key", "k".repeat(256)).json(&order());
    assert_eq!(refused("a long key", key).await, (400, fields(&["Idempotency-Key"], "parameter")));

    for table in
        ["SELECT count(*) FROM orders", "SELECT count(*) FROM order_items", "SELECT count(*) FROM order_outbox"]
    {
        assert_eq!(number(&env, "orders", table).await, 0, "{table}");
    }
}
