//! Processes that die, or are all stopped, while orders come in.

use futures_util::future::join_all;
use testkit::{Env, SERVICES, wait_until};

use crate::stand::{SOON, assert_all_ended_and_clean, assert_clean, data_dir, number, placed, supervised, under_load};

const MIX: &str = "declined=5,unserved=10";
const PENDING: &str = "SELECT count(*) FROM orders WHERE status = 'PENDING'";

const ENDED: &str = "SELECT count(*) FROM orders WHERE status <> 'PENDING'";

/// Waits until some more orders have ended: the load is in full swing.
async fn more_end(env: &Env) {
    let before = number(env, "orders", ENDED).await;
    wait_until("orders to end", SOON, async || number(env, "orders", ENDED).await >= before + 50).await;
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
        for victims in &victims {
            more_end(&env).await;
            let under_way = async || number(&env, "orders", PENDING).await > 0;
            wait_until("orders to be under way", SOON, under_way).await;
            join_all(victims.iter().map(|service| cluster.service(service).kill9())).await;
            let back = async || victims.iter().all(|service| cluster.service(service).is_ready());
            wait_until("those that were killed to be back", SOON, back).await;
        }
    };
    let ((loads, ()), revived) = supervised(&cluster, under_load(&cluster, MIX, faults)).await;
    eprintln!("killed and started again: {revived:?}, under {} orders", 200 * loads.len());
    assert_eq!(revived.len(), killed, "{revived:?}");
    assert_clean(&env).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_everything_in_the_middle_of_a_load_and_starting_it_again_loses_nothing() {
    let env = Env::new("down-up").await;
    let cluster = env.cluster().start().await;
    let down_and_up = async {
        more_end(&env).await;
        cluster.stop_all().await;
        cluster.revive().await;
        data_dir(&cluster);
    };
    let (summary, ()) = tokio::join!(placed(&cluster, 2_000, 32, MIX), down_and_up);
    assert_all_ended_and_clean(&cluster, &summary).await;
}
