//! Faults by record on the topic `chaos.faults`, and how often each has hit, from the services' metrics.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::bail;
use chrono::{TimeDelta, Utc};
use messaging::{Producer, Record};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::AbortHandle;
use uuid::Uuid;

use super::stage::until;
use crate::api::Api;

const TOPIC: &str = "chaos.faults";
/// Between two looks at the metrics of all services.
const INTERVAL: Duration = Duration::from_millis(200);
/// A service learns of a fault within a second; one that was just started needs longer.
const LEARNS_WITHIN: Duration = Duration::from_secs(30);
/// Who has not obeyed the first fault by then never obeys one.
const JOINS_WITHIN: Duration = Duration::from_secs(10);
/// Longer than any cell; after that every fault has ended, whatever became of this process.
const LEASE: TimeDelta = TimeDelta::minutes(10);

/// A fault that is to be aimed at one saga.
#[derive(Clone, Debug)]
pub(super) struct Planned {
    /// The topic a message is read from; of a reply that is dropped, the one it is written to.
    pub(super) topic: String,
    /// As in the catalogue of faults.
    pub(super) fault: Value,
    /// Only so many messages.
    pub(super) first: Option<u32>,
}

/// The faults in force and what they did.
pub(super) struct Chaos {
    api: Api,
    producer: Producer,
    active: Mutex<BTreeSet<Uuid>>,
    /// The services that obey; known after the first fault.
    obedient: OnceLock<BTreeSet<String>>,
    seen: Arc<Mutex<Seen>>,
    watcher: AbortHandle,
}

#[derive(Default)]
struct Seen {
    /// By fault and service. A process that was started again counts from zero, so the most that was seen counts.
    hits: HashMap<(Uuid, String), u64>,
    /// How many faults each service obeys now.
    obeyed: HashMap<String, u64>,
}

impl Chaos {
    /// Begins to watch the services' metrics.
    pub(super) fn new(api: Api, producer: Producer) -> Self {
        let seen = Arc::<Mutex<Seen>>::default();
        let watcher = tokio::spawn(watch(api.clone(), Arc::clone(&seen))).abort_handle();
        Self { api, producer, active: Mutex::default(), obedient: OnceLock::new(), seen, watcher }
    }

    /// Announces faults on messages with the key `saga`, or on all messages. Gives their ids, in order.
    pub(super) async fn announce(&self, saga: Option<Uuid>, faults: &[Planned]) -> anyhow::Result<Vec<Uuid>> {
        let ids: Vec<Uuid> = faults.iter().map(|_| Uuid::new_v4()).collect();
        for (id, fault) in ids.iter().zip(faults) {
            self.producer.send(&record(*id, Some(announcement(*id, saga, fault)))).await?;
        }
        lock(&self.active).extend(&ids);
        Ok(ids)
    }

    /// Takes a fault back.
    pub(super) async fn end(&self, fault: Uuid) -> anyhow::Result<()> {
        if lock(&self.active).remove(&fault) {
            self.producer.send(&record(fault, None)).await?;
        }
        Ok(())
    }

    /// Returns when every service knows which faults are in force, and which are not any more.
    pub(super) async fn settled(&self) -> anyhow::Result<()> {
        let expected = lock(&self.active).len() as u64;
        let all_services: BTreeSet<String> = self.api.services()?.into_iter().collect();
        let start = Instant::now();
        let settled = until(LEARNS_WITHIN, async || {
            let obeyed = lock(&self.seen).obeyed.clone();
            let waited_for = match self.obedient.get() {
                Some(known) => known.clone(),
                // The first time: all of them, unless some take no faults at all.
                None if start.elapsed() < JOINS_WITHIN => all_services.clone(),
                None => obeyed.iter().filter(|(_, count)| **count > 0).map(|(name, _)| name.clone()).collect(),
            };
            let all = waited_for.iter().all(|service| obeyed.get(service) == Some(&expected));
            (all && waited_for.contains("orchestrator")).then(|| self.obedient.get_or_init(|| waited_for))
        });
        if settled.await.is_none() {
            let obeyed = lock(&self.seen).obeyed.clone();
            bail!("{expected} faults are announced, and the services obey {obeyed:?}: do they run with CHAOS_ENABLED?");
        }
        Ok(())
    }

    /// How often `fault` has hit, in which services.
    pub(super) fn hits(&self, fault: Uuid) -> (u64, Vec<String>) {
        let seen = lock(&self.seen);
        let of_fault = seen.hits.iter().filter(|((id, _), hits)| *id == fault && **hits > 0);
        let (services, hits): (Vec<String>, Vec<u64>) =
            of_fault.map(|((_, service), hits)| (service.clone(), *hits)).unzip();
        (hits.iter().sum(), services)
    }
}

impl Drop for Chaos {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn announcement(id: Uuid, saga: Option<Uuid>, planned: &Planned) -> Vec<u8> {
    let mut radius = json!({ "keys": Vec::from_iter(saga) });
    if let Some(first) = planned.first {
        radius["first"] = json!(first);
    }
    let record = json!({
        "id": id,
        "target": { "topic": planned.topic },
        "fault": planned.fault,
        "blastRadius": radius,
        "expiresAt": Utc::now() + LEASE,
    });
    record.to_string().into_bytes()
}

fn record(id: Uuid, payload: Option<Vec<u8>>) -> Record {
    Record::unsent(TOPIC, Some(id.to_string().into_bytes()), payload)
}

async fn watch(api: Api, seen: Arc<Mutex<Seen>>) {
    loop {
        for service in api.services().unwrap_or_default() {
            let text = metrics(&api, &service).await;
            let mut seen = lock(&seen);
            match text {
                Some(text) => seen.take(&service, &text),
                // Down, or about to be started again: it obeys nothing.
                None => drop(seen.obeyed.remove(&service)),
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn metrics(api: &Api, service: &str) -> Option<String> {
    let request = api.request(Method::GET, service, "/metrics").ok()?.timeout(Duration::from_secs(2));
    request.send().await.ok()?.error_for_status().ok()?.text().await.ok()
}

impl Seen {
    fn take(&mut self, service: &str, text: &str) {
        let mut obeyed = 0;
        for (name, value) in text.lines().filter_map(|line| line.rsplit_once(' ')) {
            if name == "chaos_active_faults" {
                obeyed = value.parse().unwrap_or_default();
            } else if let Some(fault) = name.strip_prefix("chaos_injections_total{").and_then(fault_of) {
                let hits = self.hits.entry((fault, service.to_owned())).or_default();
                *hits = value.parse::<u64>().unwrap_or_default().max(*hits);
            }
        }
        self.obeyed.insert(service.to_owned(), obeyed);
    }
}

/// The fault in the labels of a metric.
fn fault_of(labels: &str) -> Option<Uuid> {
    let (_, rest) = labels.split_once("fault=\"")?;
    rest.get(..36)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_are_read_from_metrics_and_a_restart_loses_none() {
        let fault = Uuid::from_u128(7);
        let mut seen = Seen::default();
        let text = |hits| {
            format!(
                "# TYPE chaos_active_faults gauge\nchaos_active_faults 3\n\
                 chaos_injections_total{{fault=\"{fault}\",topic=\"a.b\",type=\"reorder\"}} {hits}\nother_total 9\n"
            )
        };
        seen.take("payment-svc", &text(2));
        seen.take("payment-svc", &text(1));
        assert_eq!(seen.hits[&(fault, "payment-svc".to_owned())], 2);
        assert_eq!(seen.obeyed["payment-svc"], 3);
        seen.take("payment-svc", "up 1\n");
        assert_eq!(seen.obeyed["payment-svc"], 0);
    }
}
