//! Orders that wait for something that will not come.

use testkit::{Env, order, wait_until};

use crate::stand::{SOON, assert_clean, execute, judged, violations};

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

async fn letter_of(env: &Env, topic: &str, order: uuid::Uuid) {
    wait_until(&format!("a letter of {order} on {topic}"), SOON, async || {
        let letters = env.read_topic(topic).await;
        letters.iter().any(|letter| letter.key == Some(order.to_string().into_bytes()))
    })
    .await;
}
