//! What is shown of orders: one, a list, and a stream of changes.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::{Env, Process, order, order_with};
use uuid::Uuid;

use crate::applying_ends::{end, order_shows};
use crate::support::{get, post};

#[tokio::test]
async fn an_order_is_shown_with_its_lines() {
    let env = Env::new("orders").await;
    let service = env.start_service("order-api", &[]).await;
    let id = post(&service, &order()).await.order();
    let shown = get(&service, &format!("/api/orders/{id}")).await;
    assert_eq!(shown.status, 200);
    let mut body = shown.body;
    for time in ["createdAt", "updatedAt"] {
        let text = body.as_object_mut().and_then(|body| body.remove(time)).expect("a time");
        assert!(chrono::DateTime::parse_from_rfc3339(text.as_str().expect("text")).is_ok());
    }
    let expected = json!({
        "orderId": id, "status": "PENDING", "customerId": "c-1001", "currency": "EUR", "total": 3998,
        "items": [{ "sku": "SKU-001", "quantity": 2, "unitPrice": 1999 }]
    });
    assert_eq!(body, expected);

    let unknown = get(&service, &format!("/api/orders/{}", Uuid::now_v7())).await;
    assert_eq!((unknown.status, unknown.problem()), (404, "not-found"));
    assert_eq!(get(&service, "/api/orders/no-id").await.status, 400);
}

#[tokio::test]
async fn a_list_is_paged_newest_first_and_filtered() {
    let env = Env::new("orders").await;
    let service = env.start_service("order-api", &[]).await;
    let mut mine = Vec::new();
    for n in 0..5 {
        mine.push(post(&service, &order_with("/customerId", "c-7")).await.order());
        post(&service, &order_with("/customerId", format!("other-{n}"))).await.order();
    }
    mine.reverse();
    assert_eq!(pages(&service, "customerId=c-7&limit=2").await, [&mine[..2], &mine[2..4], &mine[4..]]);
    assert_eq!(pages(&service, "limit=500").await.concat().len(), 10);

    env.send(end("order.cancelled", mine[3], "CANCELLED", 2, Some("declined"))).await;
    order_shows(&service, mine[3], "CANCELLED").await;
    assert_eq!(pages(&service, "status=CANCELLED").await, [[mine[3]]]);
    assert_eq!(pages(&service, "status=CANCELLED&customerId=c-7&limit=1").await, [[mine[3]]]);
    let pending: Vec<Uuid> = mine.iter().copied().filter(|id| *id != mine[3]).collect();
    assert_eq!(pages(&service, "status=PENDING&customerId=c-7&limit=3").await, [&pending[..3], &pending[3..]]);
    assert_eq!(pages(&service, "status=PARKED").await, [Vec::<Uuid>::new()]);

    for query in ["limit=0", "limit=501", "limit=x", "status=LOST", "cursor=!", "customerId="] {
        let refused = get(&service, &format!("/api/orders?{query}")).await;
        assert_eq!((refused.status, refused.problem()), (400, "malformed-request"), "{query}");
    }
    for (query, parameter) in [("customerid=c-7", "customerid"), ("customerId=c%007", "customerId")] {
        let refused = get(&service, &format!("/api/orders?{query}")).await;
        assert_eq!((refused.status, refused.problem()), (400, "malformed-request"), "{query}");
        assert_eq!(refused.body["errors"][0]["parameter"], parameter, "{query}");
    }
}

/// The ids on every page of a list.
async fn pages(service: &Process, query: &str) -> Vec<Vec<Uuid>> {
    let mut pages = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = get(service, &format!("/api/orders?{query}{cursor}")).await;
        assert_eq!(page.status, 200, "{}", page.body);
        let items = page.body["items"].as_array().expect("items");
        pages.push(items.iter().map(|item| item["orderId"].as_str().expect("text").parse().expect("an id")).collect());
        match page.body["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return pages,
        }
    }
}

#[tokio::test]
async fn a_stream_tells_the_status_at_once_then_each_change_until_the_end() {
    let env = Env::new("orders").await;
    let watched = env.start_service("order-api", &[("EVENTS_KEEP_ALIVE_MS", "200")]).await;
    let id = post(&watched, &order()).await.order();
    let mut stream = Stream::open(&watched, id).await;
    assert_eq!(stream.next().await.map(|event| event["status"].clone()), Some(json!("PENDING")));
    stream.comment().await;

    env.send(end("order.parked", id, "PARKED", 5, Some("no answer"))).await;
    let parked = stream.next().await.expect("the stream stays open");
    assert_eq!((&parked["status"], &parked["reason"]), (&json!("PARKED"), &json!("no answer")));
    assert_eq!(parked["orderId"], json!(id));
    env.send(end("order.completed", id, "COMPLETED", 8, None)).await;
    let completed = stream.next().await.expect("the end");
    assert_eq!((&completed["status"], completed.get("reason")), (&json!("COMPLETED"), None));
    assert_eq!(stream.next().await, None);

    // Of an order that has ended, the stream tells this and ends.
    let mut late = Stream::open(&watched, id).await;
    assert_eq!(late.next().await.map(|event| event["status"].clone()), Some(json!("COMPLETED")));
    assert_eq!(late.next().await, None);
    assert_eq!(get(&watched, &format!("/api/orders/{}/events", Uuid::now_v7())).await.status, 404);
}

#[tokio::test]
async fn a_stream_sees_what_another_replica_applied() {
    let env = Env::new("orders").await;
    let one = env.start_service("order-api", &[]).await;
    let two = env.start_service("order-api", &[]).await;
    let id = post(&one, &order()).await.order();
    let mut streams = [Stream::open(&one, id).await, Stream::open(&two, id).await];
    for stream in &mut streams {
        stream.next().await.expect("the status now");
    }
    env.send(end("order.cancelled", id, "CANCELLED", 3, Some("declined"))).await;
    for stream in &mut streams {
        assert_eq!(stream.next().await.map(|event| event["status"].clone()), Some(json!("CANCELLED")));
    }
}

#[tokio::test]
async fn streams_are_bounded_and_do_not_hold_up_a_shutdown() {
    let env = Env::new("orders").await;
    let service = env.start_service("order-api", &[("EVENTS_MAX_SUBSCRIBERS", "1")]).await;
    let id = post(&service, &order()).await.order();
    let mut stream = Stream::open(&service, id).await;
    stream.next().await.expect("the status now");
    let refused = get(&service, &format!("/api/orders/{id}/events")).await;
    assert_eq!((refused.status, refused.problem()), (503, "unavailable"));
    assert!(refused.says_when_to_retry());

    // Had the stream held it up, it would have been cut off, which is no success.
    assert!(service.stop().await.expect("it ran").success());
    assert_eq!(stream.next().await, None);
}

/// An open stream of events.
struct Stream {
    response: reqwest::Response,
    text: String,
}

impl Stream {
    async fn open(service: &Process, id: Uuid) -> Self {
        let response = reqwest::get(format!("{}/api/orders/{id}/events", service.url())).await.expect("an answer");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, text: String::new() }
    }

    /// The data of the next event; `None` when the stream has ended.
    async fn next(&mut self) -> Option<Value> {
        loop {
            let block = self.block().await?;
            if let Some(data) = block.lines().find_map(|line| line.strip_prefix("data:")) {
                assert!(block.contains("event: status"), "{block}");
                return Some(serde_json::from_str(data).expect("JSON"));
            }
        }
    }

    /// Waits for a comment, which keeps a silent stream open.
    async fn comment(&mut self) {
        while !self.block().await.expect("an open stream").starts_with(':') {}
    }

    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let block = block.to_owned();
                self.text = rest.to_owned();
                return Some(block);
            }
            let chunk = tokio::time::timeout(Duration::from_secs(180), self.response.chunk()).await;
            let chunk = chunk.expect("something within three minutes").expect("a readable stream")?;
            self.text.push_str(std::str::from_utf8(&chunk).expect("UTF-8"));
        }
    }
}
