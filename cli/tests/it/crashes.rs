//! Processes that die, or are all stopped, while orders come in.

use std::time::Duration;

use testkit::{Env, wait_until};

use crate::stand::{assert_all_ended_and_clean, data_dir, number, placed, supervised};

const MIX: &str = "declined=5,unserved=10";

/// Waits until so many orders have ended: the load is in full swing.
async fn ended(env: &Env, count: i64) {
    let ended = "SELECT count(*) FROM orders WHERE status <> 'PENDING'";
    wait_until("orders to end", Duration::from_secs(60), async || number(env, "orders", ended).await >= count).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_the_orchestrator_and_payment_in_the_middle_of_a_load_loses_nothing() {
    let env = Env::new("kill").await;
    let cluster = env.cluster().start().await;
    let faults = async {
        for round in 1..=2 {
            ended(&env, round * 100).await;
            tokio::join!(cluster.service("orchestrator").kill9(), cluster.service("payment-svc").kill9());
        }
    };
    let work = async { tokio::join!(placed(&cluster, 3_000, 32, MIX), faults).0 };
    let (summary, revived) = supervised(&cluster, work).await;
    assert_eq!(revived.len(), 4, "two of each were killed: {revived:?}");
    assert_all_ended_and_clean(&cluster, &summary).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_everything_in_the_middle_of_a_load_and_starting_it_again_loses_nothing() {
    let env = Env::new("down-up").await;
    let cluster = env.cluster().start().await;
    let down_and_up = async {
        ended(&env, 100).await;
        cluster.stop_all().await;
        cluster.revive().await;
        data_dir(&cluster);
    };
    let (summary, ()) = tokio::join!(placed(&cluster, 2_000, 32, MIX), down_and_up);
    assert_all_ended_and_clean(&cluster, &summary).await;
}
