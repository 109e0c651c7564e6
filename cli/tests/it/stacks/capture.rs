//! What change capture needs and may lose is told once when it is missing and once when it is back.

use std::time::Duration;

use serde_json::Value;
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor};
use tokio::runtime::Runtime;

use super::{Stack, alone, port, stderr, until};

/// A look every 5 seconds, for topics every 15, and some time for a server to notice.
const SOON: Duration = Duration::from_secs(90);
/// So that orders are published again at once, and a megabyte of log is a lag.
const HASTY: [(&str, &str); 4] = [
    ("RECONCILER_INTERVAL_MS", "500"),
    ("RECONCILER_PENDING_AFTER_MS", "2000"),
    ("RECONCILER_MAX_INTERVAL_MS", "2000"),
    ("SYMPHONY_SLOT_LAG_MB", "1"),
];

impl Stack {
    fn alarms(&self) -> Vec<String> {
        let state: Value = serde_json::from_slice(&self.succeed(&["status", "--json"]).stdout).expect("JSON");
        let alarms = state["alarms"].as_array().map(Vec::as_slice).unwrap_or_default();
        alarms.iter().map(|alarm| alarm["name"].as_str().expect("a name").to_owned()).collect()
    }

    fn raises(&self, alarm: &str) {
        until(alarm, SOON, || self.alarms().iter().any(|name| name == alarm));
    }

    fn ends(&self, alarm: &str) {
        until(&format!("the end of {alarm}"), SOON, || self.alarms().iter().all(|name| name != alarm));
    }

    /// How often the supervisor said so.
    fn said(&self, words: &str) -> usize {
        let log = std::fs::read_to_string(self.data().join("logs/supervisor.log")).expect("a log");
        log.matches(words).count()
    }

    fn sql(&self, statement: &'static str) {
        let port = port(&self.component("postgres"));
        let run = async {
            let url = format!("postgres://postgres@127.0.0.1:{port}/orders");
            let mut connection = PgConnection::connect(&url).await?;
            connection.execute(statement).await?;
            connection.close().await
        };
        Runtime::new().expect("a runtime").block_on(run).unwrap_or_else(|error| panic!("{statement}: {error}"));
    }

    fn slot_exists(&self) -> bool {
        self.holds("SELECT EXISTS (SELECT FROM pg_replication_slots)")
    }

    fn has_heartbeat(&self) -> bool {
        self.holds("SELECT EXISTS (SELECT FROM cdc_heartbeat)")
    }

    fn holds(&self, question: &'static str) -> bool {
        let port = port(&self.component("postgres"));
        let run = async {
            let mut connection = PgConnection::connect(&format!("postgres://postgres@127.0.0.1:{port}/orders")).await?;
            sqlx::query_scalar(question).fetch_one(&mut connection).await
        };
        Runtime::new().expect("a runtime").block_on(run).expect("an answer")
    }

    /// Places an order and gives its id.
    fn order(&self) -> String {
        let placed: Value = serde_json::from_slice(&self.succeed(&["order", "--json"]).stdout).expect("JSON");
        placed["orderId"].as_str().expect("an order").to_owned()
    }

    fn completes(&self, order: &str) {
        let url = format!("http://127.0.0.1:{}/api/orders/{order}", port(&self.component("order-api")));
        let status = async || -> Value {
            let order: Value = reqwest::get(&url).await.expect("an answer").json().await.expect("JSON");
            order["status"].clone()
        };
        let runtime = Runtime::new().expect("a runtime");
        until(&format!("the end of {order}"), SOON, || runtime.block_on(status()) == "COMPLETED");
    }

    fn delete_topic(&self, topic: &str) {
        let broker = format!("127.0.0.1:{}", port(&self.component("kafka")));
        let topics = [topic];
        let delete = messaging::admin::delete_topics(&broker, &topics);
        Runtime::new().expect("a runtime").block_on(delete).expect("the topic is deleted");
    }
}

#[test]
fn a_lag_a_missing_publication_and_a_missing_topic_are_alarms_until_they_are_over() {
    let _alone = alone();
    let stack = Stack::new();
    stack.succeed_with(&["up", "--detach"], &HASTY);
    assert_eq!(stack.alarms(), Vec::<String>::new());

    stack.succeed(&["stop", "connect"]);
    stack.sql("CREATE TABLE filler AS SELECT repeat('x', 100) FROM generate_series(1, 50000)");
    stack.raises("replication-slot-lag");
    stack.succeed(&["start", "connect"]);
    stack.ends("replication-slot-lag");

    stack.sql("DROP PUBLICATION orders_outbox");
    stack.raises("publication-missing");
    let passed_over = stack.order();
    let table = stack.succeed(&["status"]);
    assert!(String::from_utf8_lossy(&table.stdout).contains("ALARM publication-missing since"), "{table:?}");
    stack.sql(
        "CREATE PUBLICATION orders_outbox FOR TABLE order_outbox, cdc_heartbeat
         WITH (publish = 'insert', publish_via_partition_root = true)",
    );
    stack.ends("publication-missing");
    stack.completes(&passed_over);

    stack.delete_topic("order.created");
    stack.raises("topics-missing");
    for alarm in ["replication-slot-lag", "publication-missing", "topics-missing"] {
        assert_eq!(stack.said(&format!("ALARM {alarm}")), 1, "{alarm}");
    }
    assert_eq!(stack.said("alarm replication-slot-lag is over"), 1);
    assert_eq!(stack.said("alarm publication-missing is over"), 1);
}

#[test]
fn a_slot_that_vanished_is_never_made_again_in_silence_and_the_next_start_heals_what_was_lost() {
    let _alone = alone();
    let stack = Stack::new();
    stack.succeed_with(&["up", "--detach"], &HASTY);
    // Completed: Debezium has read something, and Connect keeps its offsets.
    stack.succeed(&["order", "--watch"]);
    until("a heartbeat of Debezium", SOON, || stack.has_heartbeat());
    stack.succeed(&["stop", "connect"]);
    until("Debezium lets go of the slot", SOON, || {
        stack.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active");
        !stack.slot_exists()
    });
    stack.raises("replication-slot-gone");
    let lost = stack.order();
    stack.succeed(&["start", "connect"]);
    stack.raises("connector-failed");
    assert!(!stack.slot_exists(), "Debezium made a slot and said nothing of what is between");
    assert_eq!(stack.said("ALARM replication-slot-gone"), 1);
    stack.succeed(&["down"]);

    let said = stderr(&stack.succeed_with(&["up", "--detach"], &HASTY));
    assert!(said.contains("ALARM replication-slot-replaced"), "{said}");
    assert!(said.contains("its last heartbeat"), "{said}");
    assert_eq!(stack.alarms(), ["replication-slot-replaced"]);
    stack.completes(&lost);
}
