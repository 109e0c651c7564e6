//! Wrong input: each its problem, naming the field, and no row.

use serde_json::{Value, json};
use testkit::{Env, order, order_with};

use crate::support::{Answer, post, rows};

#[tokio::test]
async fn an_accepted_order_is_durable_with_its_lines_and_its_event() {
    let env = Env::new("orders").await;
    let service = env.start_service("order-api", &[]).await;
    let mut body = order();
    body["items"] = json!([
        { "sku": "SKU-001", "quantity": 2, "unitPrice": 1999 },
        { "sku": "SKU-002", "quantity": 1, "unitPrice": 5, "gift": true }
    ]);
    body["note"] = json!("fields that are not known are ignored");
    let answer = post(&service, &body).await;
    let id = answer.order();
    assert_eq!(answer.body, json!({ "orderId": id, "status": "PENDING" }));
    assert_eq!(answer.headers["location"], format!("/api/orders/{id}"));

    let pool = env.pool("orders");
    let (total, currency, customer): (i64, String, String) =
        sqlx::query_as("SELECT total_minor, currency, customer_id FROM orders WHERE id = $1")
            .bind(id)
            .fetch_one(&pool)
            .await
            .expect("the order");
    assert_eq!((total, currency.as_str(), customer.as_str()), (4003, "EUR", "c-1001"));
    let lines: Vec<(String, i32, i64)> =
        sqlx::query_as("SELECT sku, quantity, unit_price_minor FROM order_items WHERE order_id = $1 ORDER BY line")
            .bind(id)
            .fetch_all(&pool)
            .await
            .expect("its lines");
    assert_eq!(lines, [("SKU-001".to_owned(), 2, 1999), ("SKU-002".to_owned(), 1, 5)]);

    let (event_id, kind, saga, payload): (uuid::Uuid, String, String, Vec<u8>) =
        sqlx::query_as("SELECT id, type, sagaid, payload FROM order_outbox WHERE aggregateid = $1")
            .bind(id.to_string())
            .fetch_one(&pool)
            .await
            .expect("its event");
    assert_eq!(event_id, orders::ids::order_created_id(id));
    assert_eq!((kind.as_str(), saga), ("com.chaossymphony.order.created.v1", id.to_string()));
    let event: orders::messages::OrderCreated = serde_json::from_slice(&payload).expect("the message of the contract");
    assert_eq!((event.order_id, event.total, event.items.len()), (id, 4003, 2));
}

#[tokio::test]
async fn wrong_input_gets_its_problem_and_leaves_no_row() {
    let env = Env::new("orders").await;
    let service = env.start_service("order-api", &[]).await;
    let client = reqwest::Client::new();
    let send = async |content_type: &str, body: Vec<u8>| {
        let request = client.post(format!("{}/api/orders", service.url())).header("content-type", content_type);
        Answer::of(request.body(body).send().await.expect("an answer")).await
    };
    let with = |from: &str, to: &str| order().to_string().replace(from, to).into_bytes();

    let unreadable: [(&str, Vec<u8>); 8] = [
        ("nothing", Vec::new()),
        ("a document that ends too early", b"{\"customerId\":\"c".to_vec()),
        ("two documents", b"{}{}".to_vec()),
        ("depth 1,000", [vec![b'['; 1000], vec![b']'; 1000]].concat()),
        ("NaN", with("1999", "NaN")),
        ("a number beyond any type", with("1999", "1e999")),
        ("a lone surrogate", with("Ada", "\\ud800")),
        ("bytes that are not UTF-8", with("Ada", "#").iter().map(|b| if *b == b'#' { 0xff } else { *b }).collect()),
    ];
    for (what, body) in unreadable {
        let answer = send("application/json", body).await;
        assert_eq!((answer.status, answer.problem()), (400, "malformed-request"), "{what}: {}", answer.body);
    }
    let surrogate = send("application/json", with("Ada", "\\ud800")).await;
    assert_eq!(surrogate.pointers(), ["/shipping/name"]);

    let large = send("application/json", with("Ada", &"a".repeat(65 * 1024))).await;
    assert_eq!((large.status, large.problem()), (413, "body-too-large"));
    let text = send("text/plain", order().to_string().into_bytes()).await;
    assert_eq!((text.status, text.problem()), (415, "unsupported-media-type"));

    let invalid: [(&str, Value); 12] = [
        ("/items", json!([])),
        ("/items", json!(7)),
        ("/items/0/quantity", json!(-1)),
        ("/items/0/quantity", json!("two")),
        ("/items/0/unitPrice", json!(0)),
        ("/items/0/unitPrice", json!(9_999_999_999_999_999_999_u64)),
        ("/items", json!([{ "sku": "A", "quantity": 1000, "unitPrice": i64::MAX }])),
        ("/currency", json!("ZZZ")),
        ("/shipping/country", json!("ZZ")),
        ("/shipping/city", json!("Par\u{0}is")),
        ("/customerId", json!("c".repeat(129))),
        ("/payment/token", json!("")),
    ];
    for (pointer, value) in invalid {
        let answer = post(&service, &order_with(pointer, value.clone())).await;
        assert_eq!((answer.status, answer.problem()), (422, "invalid-request"), "{pointer} = {value}");
        assert_eq!(answer.pointers(), [pointer], "{pointer} = {value}");
    }

    let mut many = order_with("/items/0/quantity", 0);
    many["shipping"]["name"] = json!("\u{0}");
    many.as_object_mut().expect("an object").remove("currency");
    assert_eq!(post(&service, &many).await.pointers(), ["/currency", "/items/0/quantity", "/shipping/name"]);

    assert_eq!(rows(&env.pool("orders")).await, (0, 0, 0));
}
