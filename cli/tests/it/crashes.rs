//! Processes that die, or are all stopped, while orders come in.

use std::time::Duration;

use futures_util::future::join_all;
use testkit::{Env, SERVICES, wait_until};

use crate::stand::{assert_all_ended_and_clean, data_dir, number, placed, supervised};

const MIX: &str = "declined=5,unserved=10";
const PENDING: &str = "SELECT count(*) FROM orders WHERE status = 'PENDING'";

/// Waits until so many orders have ended: the load is in full swing.
async fn ended(env: &Env, count: i64) {
    let ended = "SELECT count(*) FROM orders WHERE status <> 'PENDING'";
    wait_until("orders to end", Duration::from_secs(60), async || number(env, "orders", ended).await >= count).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_each_service_in_the_middle_of_a_load_loses_nothing() {
    let env = Env::new("kill").await;
    let cluster = env.cluster().start().await;
    // Each alone, and in the end two of them at the same moment.
    let mut victims: Vec<Vec<&str>> = SERVICES.iter().map(|(service, _)| vec![*service]).collect();
    victims.push(vec!["orchestrator", "payment-svc"]);
    let killed = victims.iter().map(Vec::len).sum::<usize>();
    let faults = async {
        for (round, victims) in (1..).zip(&victims) {
            ended(&env, round * 100).await;
            join_all(victims.iter().map(|service| cluster.service(service).kill9())).await;
        }
        assert!(number(&env, "orders", PENDING).await > 0, "the load is over before the last fault");
    };
    let work = async { tokio::join!(placed(&cluster, 3_000, 32, MIX), faults).0 };
    let (summary, revived) = supervised(&cluster, work).await;
    eprintln!("killed and started again: {revived:?}");
    assert_eq!(revived.len(), killed, "{revived:?}");
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
