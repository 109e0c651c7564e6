//! The kit itself, on real servers.

use std::time::Duration;

use messaging::Outgoing;
use testkit::{Env, wait_for};
use uuid::Uuid;

#[tokio::test]
async fn two_environments_share_nothing() {
    let (one, other) = tokio::join!(Env::new("payment"), Env::new("payment"));
    sqlx::query(
        "INSERT INTO payments (order_id, state, answered_at, undone_at) \
                 VALUES (gen_random_uuid(), 'REFUSED', now(), now())",
    )
    .execute(&one.pool("payment"))
    .await
    .expect("an insert");
    let count = "SELECT count(*) FROM payments";
    let here: i64 = sqlx::query_scalar(count).fetch_one(&one.pool("payment")).await.expect("a count");
    let there: i64 = sqlx::query_scalar(count).fetch_one(&other.role_pool("payment")).await.expect("a count");
    assert_eq!((here, there), (1, 0));
}

#[tokio::test]
async fn a_message_is_seen_by_its_own_environment_only() {
    let (one, other) = (Env::bare("topics"), Env::bare("topics"));
    one.create_topics(&["news"], 2).await;
    other.create_topics(&["news"], 2).await;
    let id = Uuid::new_v4();
    one.send(Outgoing {
        topic: "news".into(),
        key: "k".into(),
        id,
        event_type: "com.example.news.v1".into(),
        source: "/test".into(),
        subject: "k".into(),
        time: std::time::SystemTime::now().into(),
        saga_id: None,
        definition: None,
        step: None,
        causation_id: None,
        traceparent: None,
        payload: b"{}".to_vec(),
    })
    .await;
    let record = one.await_message("news", |record| record.header("ce_id") == Some(&id.to_string())).await;
    assert_eq!(record.topic, "news");
    assert!(other.read_topic("news").await.is_empty());
}

#[tokio::test]
async fn what_an_environment_made_is_gone_after_it() {
    let env = Env::new("orders").await;
    env.start_connector().await;
    let (prefix, kafka, admin) = (env.prefix().to_owned(), env.kafka().bootstrap_servers, env.pool("orders"));
    let others = Env::new("payment").await;
    drop(admin);
    drop(env);

    let leftovers = "SELECT count(*) FROM pg_database WHERE starts_with(datname, $1)";
    let databases: i64 =
        sqlx::query_scalar(leftovers).bind(&prefix).fetch_one(&others.pool("payment")).await.expect("a count");
    let slots = "SELECT count(*) FROM pg_replication_slots WHERE starts_with(slot_name::text, $1)";
    let slots: i64 = sqlx::query_scalar(slots).bind(&prefix).fetch_one(&others.pool("payment")).await.expect("a count");
    assert_eq!((databases, slots), (0, 0));
    let no_topic = wait_for(Duration::from_secs(10), async || {
        let topics = messaging::admin::list_topics(&kafka).await.expect("the topics");
        topics.keys().all(|topic| !topic.starts_with(&prefix)).then_some(())
    });
    assert!(no_topic.await.is_some(), "topics of {prefix} are left");
}
