//! Every service is restarted while orders come in, and nobody notices.

use std::time::{Duration, Instant};

use anyhow::ensure;
use stack::supervisor::SERVICES;
use stack::supervisor::control::Request;

use super::{Injected, Scene};
use crate::soak::load::Load;
use crate::soak::stand::until;

/// For what went wrong before to be over.
const PATIENCE: Duration = Duration::from_secs(60);

/// Restarts one instance after the other. order-api has two meanwhile, for one that is gone cannot answer.
pub(super) async fn rolling(scene: Scene<'_>) -> anyhow::Result<Injected> {
    let Scene { stand, load } = scene;
    until("requests to be answered at once", PATIENCE, async || settled(load).await.then_some(())).await?;
    let scale = |instances| stand.ask(Request::Scale { name: "order-api".into(), instances });
    scale(2).await?;
    until("requests to go to both", PATIENCE, async || (load.replicas() == 2).then_some(())).await?;
    let before = load.retried();
    let since = Instant::now();
    let others = SERVICES.iter().map(|service| service.name).filter(|name| *name != "order-api");
    let mut restarted = 0;
    for name in ["order-api/1", "order-api/2"].into_iter().chain(others) {
        let (service, instance) = name.split_once('/').unwrap_or((name, "1"));
        let process = || {
            let components = stand.state().map(|state| state.components).unwrap_or_default();
            let ours = components.into_iter().find(|one| one.name == service && one.instance.to_string() == instance);
            ours.and_then(|one| one.process())
        };
        let old = process();
        stand.ask(Request::Restart { name: name.into() }).await?;
        ensure!(old.is_some() && process() != old, "{name} was not restarted");
        restarted += 1;
        until("requests to go to both", PATIENCE, async || (load.replicas() == 2).then_some(())).await?;
    }
    scale(1).await?;
    until("requests to go to one", PATIENCE, async || (load.replicas() == 1).then_some(())).await?;
    let failed = load.retried() - before;
    ensure!(failed == 0, "{failed} requests failed while {restarted} instances were restarted");
    let proof = format!("{restarted} other processes in {:.0} s, no request failed", since.elapsed().as_secs_f64());
    Ok(Injected { target: "every service".into(), proof, from: Instant::now() })
}

/// Whether for a second no request had to be sent again, and few wait.
async fn settled(load: &Load) -> bool {
    let before = load.retried();
    tokio::time::sleep(Duration::from_secs(1)).await;
    load.retried() == before && load.open() < 50
}
