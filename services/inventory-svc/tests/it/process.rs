//! The program as it is shipped, over Kafka and HTTP.

use messaging::Outgoing;
use reqwest::Client;
use serde_json::{Value, json};
use testkit::Env;
use uuid::Uuid;

use crate::{astray, completed, release, reserve};

async fn get(url: String) -> (u16, Value) {
    let response = reqwest::get(url).await.expect("an answer");
    (response.status().as_u16(), response.json().await.expect("JSON"))
}

async fn put(url: String, body: &Value) -> (u16, Value) {
    let response = Client::new().put(url).json(body).send().await.expect("an answer");
    (response.status().as_u16(), response.json().await.expect("JSON"))
}

#[tokio::test]
async fn bytes_that_nobody_understands_are_dead_letters_and_their_neighbours_are_answered() {
    let env = Env::new("inventory").await;
    let service = env.start_service("inventory-svc", &[]).await;
    let (good, undone) = (Uuid::now_v7(), Uuid::now_v7());
    let line = [("SKU-007", 2)];
    let broken = |payload: &str| Outgoing { payload: payload.into(), ..reserve(Uuid::now_v7(), &line) };
    let poisons = [
        (broken("\u{1}\u{2}"), "invalid-json"),
        (broken("[1"), "invalid-json"),
        (reserve(Uuid::now_v7(), &[]), "invalid-items"),
        (reserve(Uuid::now_v7(), &[("SKU-007", 0)]), "invalid-items"),
        (reserve(Uuid::now_v7(), &[("SKU\u{0}", 1)]), "invalid-json"),
        (Outgoing { payload: b"null".to_vec(), ..release(Uuid::now_v7()) }, "invalid-json"),
        (Outgoing { payload: b"{}".to_vec(), ..completed(Uuid::now_v7()) }, "invalid-json"),
    ];
    let mut all: Vec<Outgoing> = poisons.iter().map(|(message, _)| message.clone()).collect();
    all.insert(2, reserve(good, &line));
    all.push(reserve(undone, &line));
    env.send_all(&all).await;

    for order in [good, undone] {
        env.await_message("inventory.reserved", |r| r.key == Some(order.to_string().into_bytes())).await;
    }
    env.send(release(undone)).await;
    env.await_message("inventory.released", |r| r.key == Some(undone.to_string().into_bytes())).await;
    for (message, reason) in &poisons {
        let topic = format!("{}.dlq", message.topic);
        let letter = env.await_message(&topic, |r| r.header("ce_id") == Some(message.id.to_string().as_str())).await;
        assert_eq!(letter.header("dlq-reason"), Some(*reason));
        assert_eq!(letter.payload.as_ref(), Some(&message.payload));
    }
    let url = format!("{}/api/stock/SKU-007", service.url());
    let view = |available: i64, reserved: i64, shipped: i64| json!({ "sku": "SKU-007", "available": available, "reserved": reserved, "shipped": shipped });
    assert_eq!(get(url.clone()).await, (200, view(999_998, 2, 0)));
    env.send(completed(good)).await;
    let limit = std::time::Duration::from_secs(30);
    let shipped = async || get(url.clone()).await == (200, view(999_998, 0, 2));
    testkit::wait_until("the completed order is shipped", limit, shipped).await;
}

#[tokio::test]
async fn an_operator_sets_stock_and_every_difference_is_recorded() {
    let env = Env::new("inventory").await;
    let service = env.start_service("inventory-svc", &[]).await;
    let url = |sku: &str| format!("{}/api/stock/{sku}", service.url());
    let view = |sku: &str, available: i64| json!({ "sku": sku, "available": available, "reserved": 0, "shipped": 0 });
    assert_eq!(get(url("NEW-1")).await.0, 404);
    assert_eq!(put(url("NEW-1"), &json!({ "available": 5 })).await, (201, view("NEW-1", 5)));
    assert_eq!(put(url("NEW-1"), &json!({ "available": 3 })).await, (200, view("NEW-1", 3)));
    assert_eq!(put(url("NEW-1"), &json!({ "available": 3 })).await, (200, view("NEW-1", 3)));
    assert_eq!(get(url("NEW-1")).await, (200, view("NEW-1", 3)));
    let deltas: Vec<i64> = sqlx::query_scalar("SELECT delta FROM adjustments WHERE sku = 'NEW-1' ORDER BY id")
        .fetch_all(&env.pool("inventory"))
        .await
        .expect("adjustments");
    assert_eq!(deltas, [5, -2]);

    for (sku, body) in [
        ("NEW-1", json!({ "available": -1 })),
        ("NEW-1", json!({ "available": 1_000_000_000_001_i64 })),
        ("NEW-1", json!({ "available": "many" })),
        ("NEW-1", json!({})),
        (&"x".repeat(65), json!({ "available": 1 })),
    ] {
        let (status, problem) = put(url(sku), &body).await;
        assert_eq!(status, 422, "{sku} {body}: {problem}");
        assert_eq!(problem["errors"].as_array().map(Vec::len), Some(1), "{problem}");
    }

    // Many at once: each is set, or told that it lost; no difference is lost or recorded twice.
    let mut clients = tokio::task::JoinSet::new();
    for available in 0..40 {
        clients.spawn(put_value(url("NEW-2"), available));
    }
    let statuses = clients.join_all().await;
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1);
    assert!(statuses.iter().all(|status| [200, 201, 409].contains(status)), "{statuses:?}");
    assert_eq!(astray(&env.pool("inventory")).await, Vec::<String>::new());

    let (status, first) = get(format!("{}/api/stock?limit=100", service.url())).await;
    assert_eq!((status, first["items"].as_array().map(Vec::len)), (200, Some(100)));
    let cursor = first["nextCursor"].as_str().expect("102 units are two pages");
    let (_, second) = get(format!("{}/api/stock?limit=100&cursor={cursor}", service.url())).await;
    assert_eq!(second["items"].as_array().map(Vec::len), Some(2));
    assert_eq!(second["nextCursor"], Value::Null);
    assert_eq!(get(format!("{}/api/stock?limit=0", service.url())).await.0, 400);
    assert_eq!(put(url("%00"), &json!({ "available": 1 })).await.0, 400);
    // What PostgreSQL cannot store, and what is no parameter, is the client's mistake; it is told where.
    let nul = service_kit::paging::encode_cursor(&"SKU-\0");
    for (path, parameter) in [
        ("stock/SKU%00".to_owned(), "sku"),
        (format!("stock?cursor={nul}"), "cursor"),
        ("stock?sku=SKU-001".into(), "sku"),
    ] {
        let (status, problem) = get(format!("{}/api/{path}", service.url())).await;
        assert_eq!((status, &problem["errors"][0]["parameter"]), (400, &json!(parameter)), "{path}: {problem}");
    }
}

async fn put_value(url: String, available: i64) -> u16 {
    put(url, &json!({ "available": available })).await.0
}
