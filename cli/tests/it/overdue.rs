//! Orders that wait for something that will not come.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use symphony_cli::audit::{Report, Target, audit};
use testkit::{Cluster, Env, order, wait_until};
use uuid::Uuid;

use crate::stand::{SOON, assert_clean, execute, judged, target, violations};

/// A table that takes no row: every message that wants one is poison.
const NO_PAYMENT: &str = "ALTER TABLE payments ADD CONSTRAINT never CHECK (false) NOT VALID";
const NO_SAGA: &str = "ALTER TABLE saga ADD CONSTRAINT never CHECK (false) NOT VALID";

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_is_pending_for_too_long_is_named_with_its_dead_letter() {
    let env = Env::new("overdue").await;
    let cluster = env.cluster().start().await;
    execute(&env, "payment", NO_PAYMENT).await;
    let unpaid = cluster.place(&order()).await;
    letter_of(&env, "payment.requested.dlq", unpaid).await;
    execute(&env, "orchestrator", NO_SAGA).await;
    let unknown = cluster.place(&order()).await;
    letter_of(&env, "order.created.dlq", unknown).await;
    cluster.stop_all().await;
    // They may still come right.
    assert_clean(&env).await;

    execute(&env, "orders", "UPDATE orders SET created_at = created_at - interval '6 minutes'").await;
    let report = judged(&env).await;
    let found = violations(&report, "I1");
    assert_eq!(found.len(), 1, "the saga of the other has 3 minutes more: {report}");
    let told = format!("order {unknown} is PENDING since");
    let letter = "has no saga; order.created is in the dead letters at order.created.dlq/";
    assert!(found[0].starts_with(&told) && found[0].contains(letter), "{}", found[0]);
    assert!(found[0].contains("orchestrator gave it up as"), "{}", found[0]);

    execute(&env, "orchestrator", "UPDATE saga_timeline SET at = at - interval '9 minutes'").await;
    let report = judged(&env).await;
    let told = format!("order {unpaid} is PENDING since");
    let found = violations(&report, "I1").iter().find(|violation| violation.starts_with(&told));
    let found = found.unwrap_or_else(|| panic!("the unpaid order is not named: {report}"));
    assert!(found.contains("its saga is RUNNING since"), "{found}");
    assert!(found.contains("payment.requested is in the dead letters at payment.requested.dlq/"), "{found}");
    assert!(found.contains("payment-svc gave it up as"), "{found}");
}

/// Two orders that were cut short and are old since: payment-svc has not read the command of the first, the orchestrator
/// not the event of the second. Nothing runs any more.
async fn cut_short(env: &Env, cluster: &Cluster<'_>) -> [Uuid; 2] {
    cluster.service("payment-svc").stop().await;
    let unpaid = cluster.place(&order()).await;
    env.await_message("payment.requested", is_of(unpaid)).await;
    cluster.service("orchestrator").stop().await;
    let unknown = cluster.place(&order()).await;
    env.await_message("order.created", is_of(unknown)).await;
    cluster.stop_all().await;
    execute(env, "orders", "UPDATE orders SET created_at = created_at - interval '20 minutes'").await;
    execute(env, "orchestrator", "UPDATE saga_timeline SET at = at - interval '20 minutes'").await;
    [unpaid, unknown]
}

fn is_of(order: Uuid) -> impl FnMut(&messaging::Record) -> bool {
    move |record| record.key.as_deref() == Some(order.to_string().as_bytes())
}

async fn audited_as(target: Target) -> Report {
    audit(&target).await.unwrap_or_else(|error| panic!("the audit could not look: {error:#}"))
}

fn counted(report: &Report, what: &str) -> Option<usize> {
    let counts = report.findings.iter().flat_map(|finding| &finding.counted);
    counts.filter(|count| count.what == what).map(|count| count.count).next()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_behind_a_backlog_is_under_way_as_long_as_somebody_reads() {
    let env = Env::new("behind").await;
    let cluster = env.cluster().start().await;
    let [unpaid, unknown] = cut_short(&env, &cluster).await;
    let report = judged(&env).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(counted(&report, "of them still under way"), Some(2), "{report}");
    assert_eq!(counted(&report, "late, behind what waits to be read"), Some(2), "{report}");

    // Whoever watches for long enough sees that nobody reads.
    let report = audited_as(Target { settle_within: Duration::from_secs(10), ..target(&env) }).await;
    let found = violations(&report, "I1");
    assert_eq!(found.len(), 2, "{report}");
    for (order, silent) in [
        (unpaid, "payment-svc does not read payment.requested/"),
        (unknown, "orchestrator does not read order.created/"),
    ] {
        let told = |text: &&String| text.starts_with(&format!("order {order} is PENDING")) && text.contains(silent);
        assert!(found.iter().any(|text| told(&text)), "{silent}: {report}");
    }
    assert_eq!(counted(&report, "of them still under way"), Some(0), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_time_passes_for_an_order_while_the_stack_is_down() {
    let env = Env::new("was-down").await;
    let cluster = env.cluster().start().await;
    cut_short(&env, &cluster).await;
    // Its timers have been due for long, too.
    execute(&env, "orchestrator", "UPDATE saga_timer SET due_at = due_at - interval '20 minutes'").await;
    let up_since = |minutes| Target {
        ready_since: Some(Utc::now() - TimeDelta::minutes(minutes)),
        settle_within: Duration::ZERO,
        ..target(&env)
    };
    let report = audited_as(up_since(1)).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(counted(&report, "late, but the stack was not up for so long"), Some(3), "{report}");
    assert!(!audited_as(up_since(15)).await.is_clean(), "a timer that does not fire in a stack that is up");

    // Up again, unknown since when, and looked at at once: everything goes on.
    cluster.revive().await;
    let report = audited_as(Target { settle_within: SOON, ..target(&env) }).await;
    assert!(report.is_clean(), "{report}");
}

async fn letter_of(env: &Env, topic: &str, order: Uuid) {
    wait_until(&format!("a letter of {order} on {topic}"), SOON, async || {
        let letters = env.read_topic(topic).await;
        letters.iter().any(|letter| letter.key == Some(order.to_string().into_bytes()))
    })
    .await;
}
