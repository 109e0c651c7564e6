//! Servers that die in the middle of a load.

use chrono::Utc;

use super::{SOON, Stack, alone, until};

#[test]
#[ignore = "takes two minutes: run with --ignored"]
fn servers_that_are_killed_in_the_middle_of_a_load_lose_nothing() {
    let _alone = alone();
    let stack = Stack::new();
    stack.succeed(&["up", "--detach"]);
    for name in ["postgres", "kafka", "connect"] {
        let (began, load) = (Utc::now(), stack.load(3_000));
        stack.in_full_swing(began);
        let (fault, before) = (Utc::now(), stack.component(name));
        stack.succeed(&["kill", name]);
        let restarts = || stack.component(name)["restarts"].as_u64();
        until("its next process", SOON, || restarts() > before["restarts"].as_u64());
        until("readiness", SOON, || stack.component(name)["state"] == "ready");
        eprintln!("{name} was killed, and was ready again {} s later", (Utc::now() - fault).num_seconds());
        stack.assert_survived(load, fault);
    }
}
