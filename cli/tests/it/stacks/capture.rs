//! What change capture needs and may lose is told once when it is missing and once when it is back.

use chrono::Utc;
use serde_json::Value;
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor};
use tokio::runtime::Runtime;

use super::{SOON, Stack, place, port, stderr, until};

/// So that orders are published again at once, a megabyte of log is a lag, and one missed heartbeat a stall.
const HASTY: [(&str, &str); 6] = [
    ("RECONCILER_INTERVAL_MS", "500"),
    ("RECONCILER_PENDING_AFTER_MS", "2000"),
    ("RECONCILER_MAX_INTERVAL_MS", "2000"),
    ("SYMPHONY_SLOT_LAG_MB", "1"),
    ("CHANGE_CAPTURE_INTERVAL_MS", "500"),
    ("CHANGE_CAPTURE_STALLED_AFTER_MS", "15000"),
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
        let url = self.database("orders");
        let run = async {
            let mut connection = PgConnection::connect(&url).await?;
            connection.execute(statement).await?;
            connection.close().await
        };
        Runtime::new().expect("a runtime").block_on(run).unwrap_or_else(|error| panic!("{statement}: {error}"));
    }

    fn database(&self, name: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{name}", port(&self.component("postgres")))
    }

    fn slot_exists(&self) -> bool {
        self.holds("orders", "SELECT EXISTS (SELECT FROM pg_replication_slots)")
    }

    fn has_heartbeat(&self) -> bool {
        self.holds("orders", "SELECT EXISTS (SELECT FROM cdc_heartbeat)")
    }

    fn holds(&self, database: &str, question: &'static str) -> bool {
        let url = self.database(database);
        let run = async {
            let mut connection = PgConnection::connect(&url).await?;
            sqlx::query_scalar(question).fetch_one(&mut connection).await
        };
        Runtime::new().expect("a runtime").block_on(run).expect("an answer")
    }

    /// Whether order-api measures that no log is kept.
    fn keeps_no_log(&self) -> bool {
        let url = format!("http://127.0.0.1:{}/metrics", port(&self.component("order-api")));
        let ask = async { reqwest::get(&url).await?.text().await };
        let metrics = Runtime::new().expect("a runtime").block_on(ask).expect("the metrics");
        metrics.lines().any(|line| line == "order_api_outbox_retained_bytes 0")
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

    fn delete_topics(&self, topics: &[&str]) {
        let broker = format!("127.0.0.1:{}", port(&self.component("kafka")));
        let delete = messaging::admin::delete_topics(&broker, topics);
        Runtime::new().expect("a runtime").block_on(delete).expect("the topics are deleted");
    }

    /// Drops the slot in the moment in which nobody reads it, Connect being stopped.
    fn drop_slot(&self) {
        until("Debezium lets go of the slot", SOON, || {
            self.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active");
            !self.slot_exists()
        });
    }

    /// Has PostgreSQL give the slot up, as when more log than it keeps was not read; Connect being stopped.
    fn lose_slot(&self) {
        self.sql("ALTER SYSTEM SET idle_replication_slot_timeout = '1s'");
        self.sql("SELECT pg_reload_conf()");
        until("PostgreSQL gives the slot up", SOON, || {
            // That is when it looks.
            self.sql("CHECKPOINT");
            self.holds("orders", "SELECT EXISTS (SELECT FROM pg_replication_slots WHERE wal_status = 'lost')")
        });
        self.sql("ALTER SYSTEM RESET idle_replication_slot_timeout");
        self.sql("SELECT pg_reload_conf()");
    }

    /// Leaves what a repair of the slot leaves that is killed after it has made the slot.
    fn slot_repair_was_killed(&self) {
        let url = format!("http://127.0.0.1:{}/connectors/orders-outbox/stop", port(&self.component("connect")));
        let stop = async { reqwest::Client::new().put(&url).send().await?.error_for_status() };
        Runtime::new().expect("a runtime").block_on(stop).expect("a stopped connector");
        let idle = "SELECT NOT EXISTS (SELECT FROM pg_replication_slots WHERE active)";
        until("Debezium lets go of the slot", SOON, || self.holds("orders", idle));
        self.sql("INSERT INTO owed_refills (part) VALUES ('slot')");
    }

    fn owes_nothing(&self) -> bool {
        self.holds("orders", "SELECT NOT EXISTS (SELECT FROM owed_refills)")
    }

    /// Changes one setting of the connector behind everybody's back.
    fn change_setting(&self, name: &str, value: &str) {
        let url = format!("http://127.0.0.1:{}/connectors/orders-outbox/config", port(&self.component("connect")));
        let change = async {
            let mut config: Value = reqwest::get(&url).await?.json().await?;
            config[name] = value.into();
            reqwest::Client::new().put(&url).json(&config).send().await?.error_for_status()
        };
        Runtime::new().expect("a runtime").block_on(change).expect("a changed setting");
    }

    /// What `symphony repair` finds, by part.
    fn wrong(&self) -> Vec<String> {
        let output = self.run(&["repair", "--json"]);
        let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", stderr(&output)));
        let findings = told["findings"].as_array().expect("findings");
        assert_eq!(output.status.success(), findings.is_empty(), "{told}");
        findings.iter().map(|finding| finding["part"].as_str().expect("a part").to_owned()).collect()
    }

    fn assert_clean(&self) {
        let audit = self.run(&["audit"]);
        assert!(audit.status.success(), "{}{}", String::from_utf8_lossy(&audit.stdout), stderr(&audit));
    }
}

#[test]
fn a_lag_a_failed_task_a_changed_setting_and_a_missing_publication_are_seen_and_mended() {
    let _place = place();
    let stack = Stack::new();
    stack.succeed_with(&["up", "--detach"], &HASTY);
    assert_eq!(stack.alarms(), Vec::<String>::new());
    assert_eq!(stack.wrong(), Vec::<String>::new());

    // Any replica of order-api tells what comes through, not only the first.
    stack.succeed(&["scale", "order-api", "2"]);
    stack.succeed(&["stop", "order-api/1"]);
    stack.succeed(&["stop", "connect"]);
    stack.sql("CREATE TABLE filler AS SELECT repeat('x', 100) FROM generate_series(1, 50000)");
    stack.raises("replication-slot-lag");
    stack.raises("cdc-stalled");
    stack.succeed(&["start", "connect"]);
    stack.ends("replication-slot-lag");
    stack.ends("cdc-stalled");
    stack.succeed(&["start", "order-api/1"]);
    stack.succeed(&["scale", "order-api", "1"]);

    // Debezium takes a refused login as final: its task fails, and Connect leaves it so.
    stack.sql(
        "ALTER ROLE debezium NOLOGIN; SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active",
    );
    stack.raises("connector-failed");
    let stranded = stack.order();
    stack.sql("ALTER ROLE debezium LOGIN");
    until("the task runs again", SOON, || !stack.alarms().contains(&"connector-failed".to_owned()));
    stack.completes(&stranded);

    stack.change_setting("heartbeat.interval.ms", "3600000");
    until("the setting is set back", SOON, || stack.said("it is set back: heartbeat.interval.ms") == 1);

    stack.sql("DROP PUBLICATION orders_outbox");
    stack.raises("publication-missing");
    // The connector says RUNNING and its slot moves on: only the heartbeat tells.
    stack.raises("cdc-stalled");
    let passed_over = stack.order();
    let table = stack.succeed(&["status"]);
    assert!(String::from_utf8_lossy(&table.stdout).contains("`symphony repair publication`"), "{table:?}");
    assert!(stack.wrong().contains(&"publication".to_owned()));
    stack.succeed(&["repair", "publication"]);
    stack.ends("publication-missing");
    stack.ends("cdc-stalled");
    stack.completes(&passed_over);

    for alarm in ["replication-slot-lag", "publication-missing"] {
        assert_eq!(stack.said(&format!("ALARM {alarm}")), 1, "{alarm}");
        assert_eq!(stack.said(&format!("alarm {alarm} is over")), 1, "{alarm}");
    }
    stack.assert_clean();
}

#[test]
fn topics_deleted_under_load_are_made_again_and_refilled_from_the_databases() {
    let _place = place();
    let stack = Stack::new();
    stack.succeed_with(&["up", "--detach"], &HASTY);
    // An end that one of its readers has not heard when the topic is lost: nobody would tell it again.
    stack.succeed(&["stop", "notification-svc"]);
    let unheard = stack.order();
    stack.completes(&unheard);

    let (began, load) = (Utc::now(), stack.load(2_000));
    stack.in_full_swing(began);
    let fault = Utc::now();
    stack.delete_topics(&["order.created", "payment.requested", "payment.successful", "order.completed"]);
    stack.raises("topics-missing");
    stack.assert_survived(load, fault);
    stack.ends("topics-missing");
    assert_eq!(stack.said("ALARM topics-missing"), 1);
    stack.succeed(&["start", "notification-svc"]);
    let all_told = "SELECT count(*) >= 2001 FROM notifications";
    until("everybody is told", SOON, || stack.holds("notification", all_told));

    // Without its offsets Connect goes on where the slot stands.
    stack.delete_topics(&["connect.offsets"]);
    stack.raises("topics-missing");
    stack.ends("topics-missing");
    let order = stack.order();
    stack.completes(&order);
    assert_eq!(stack.wrong(), Vec::<String>::new());
    stack.assert_clean();
}

#[test]
fn a_slot_that_vanished_or_was_given_up_is_never_made_again_in_silence_and_a_start_or_a_repair_heals_what_was_lost() {
    let _place = place();
    let stack = Stack::new();
    stack.succeed_with(&["up", "--detach"], &HASTY);
    // Completed: Debezium has read something, and Connect keeps its offsets.
    stack.succeed(&["order", "--watch"]);
    until("a heartbeat of Debezium", SOON, || stack.has_heartbeat());
    stack.succeed(&["stop", "connect"]);
    stack.drop_slot();
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

    // The same while the stack goes on.
    until("a heartbeat of Debezium", SOON, || stack.has_heartbeat());
    stack.succeed(&["stop", "connect"]);
    stack.drop_slot();
    let lost = stack.order();
    stack.succeed(&["start", "connect"]);
    stack.raises("replication-slot-gone");
    assert!(stack.wrong().contains(&"slot".to_owned()));
    assert!(!stack.run(&["repair", "connector"]).status.success(), "a connector was started without a slot");
    let repaired = stderr(&stack.succeed(&["repair", "slot"]));
    assert!(repaired.contains("replication slot orders_outbox made"), "{repaired}");
    stack.completes(&lost);
    stack.ends("replication-slot-gone");
    until("nothing is owed", SOON, || stack.owes_nothing());

    // One that is there and of no use: nobody replaces it but the repair, which says so.
    until("a heartbeat of Debezium", SOON, || stack.has_heartbeat());
    stack.succeed(&["stop", "connect"]);
    stack.lose_slot();
    stack.raises("replication-slot-lost");
    until("no log to be kept for it", SOON, || stack.keeps_no_log());
    let lost = stack.order();
    stack.succeed(&["start", "connect"]);
    assert!(stack.wrong().contains(&"slot".to_owned()));
    let repaired = stderr(&stack.succeed(&["repair", "slot"]));
    assert!(repaired.contains("replication slot orders_outbox dropped"), "{repaired}");
    stack.completes(&lost);
    stack.ends("replication-slot-lost");
    until("nothing is owed", SOON, || stack.owes_nothing());

    stack.slot_repair_was_killed();
    let repaired = stderr(&stack.succeed(&["repair", "slot"]));
    assert!(repaired.contains("orders published again"), "{repaired}");
    until("nothing is owed", SOON, || stack.owes_nothing());
    let order = stack.order();
    stack.completes(&order);
    stack.assert_clean();
}
