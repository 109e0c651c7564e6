//! The start of a stack, each part as soon as what it needs is ready:
//!
//! ```text
//! postgres ── databases ── slot ──┐          ┌── services, all at once
//! kafka ──────────────────────────┴─ topics ─┴── connect ── outbox connector
//! ```
//! The slot comes before the services, since an order accepted without it would not be published. One that is lost is the
//! exception: it is never replaced in silence, and `symphony repair slot` needs a stack that runs. The databases come before
//! the topics, since what was lost with topics is written down before they are made again.

use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use messaging::admin::TopicSpec;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::Inner;
use super::change_capture::{SLOT_LOST, SLOT_REPLACED, alarms::Alarms, lag_limit, lost_slot};
use super::service::{SERVICES, Service, Surroundings};
use super::state::Kind;
use crate::backup::Interrupted;
use crate::layout::create_dir;
use crate::ports::Ports;
use crate::provision::{Names, OutboxConnector, databases, slot, topics};
use crate::repair::{self, Target};
use crate::servers::{Endpoints, Servers};
use crate::{DataDir, Error, fetch};

/// Fetches what is missing and starts everything; returns when all is ready.
pub(super) async fn boot(inner: &Arc<Inner>) -> Result<(), Error> {
    let report = &inner.report;
    // Wrong settings are told before anything is started.
    lag_limit()?;
    Interrupted::refuse(&inner.data)?;
    let fetched = Instant::now();
    let mut fetching = false;
    let files = fetch::ensure(|cache| {
        fetching = true;
        report.say(&format!("fetching the servers into {} (about 75 MB, once)", cache.display()));
    })
    .await?;
    if fetching {
        report.step("servers fetched", fetched.elapsed());
    }

    let options = &inner.options;
    let servers = Servers::behind(&inner.data, &files, options.ports, options.links.clone())?;
    say_replaced_ports(inner, servers.endpoints.ports);
    let around = inner.around.get_or_init(|| Surroundings {
        data: inner.data.clone(),
        repository: inner.options.repository.clone(),
        endpoints: servers.endpoints.clone(),
        programs: inner.options.programs.clone(),
        environment: inner.options.environment.clone(),
        report: report.clone(),
    });
    let fleet = &inner.fleet;
    fleet.add("postgres", 1, Kind::Server, servers.postgres.clone());
    fleet.add("kafka", 1, Kind::Server, servers.kafka.clone());
    fleet.add("connect", 1, Kind::Server, servers.connect.clone());
    if !inner.options.servers_only {
        for spec in SERVICES {
            fleet.add(spec.name, 1, Kind::Service, Arc::new(Service::new(*spec, 1, around)));
        }
    }

    // Both branches below have to be there before anything that needs both starts: first the topics, then the services.
    let both = Barrier::new(2);
    let (endpoints, repository) = (&around.endpoints, &around.repository);
    let database = async {
        ready(inner, "postgres").await?;
        step(inner, "databases migrated", databases::ensure(endpoints, repository, "")).await?;
        ensure_slot(endpoints, &inner.data, &Alarms::new(report, &inner.board)).await?;
        both.wait().await;
        both.wait().await;
        services(inner).await
    };
    let streaming = async {
        ready(inner, "kafka").await?;
        let missing = topics::missing(endpoints, repository, "").await?;
        both.wait().await;
        step(inner, "topics declared", make_topics(around, &missing)).await?;
        both.wait().await;
        ready(inner, "connect").await?;
        // A lost slot cannot be read: its alarm says what to do.
        if slot::find(endpoints, &Names::default()).await?.is_some_and(|slot| slot.lost) {
            return Ok(());
        }
        step(inner, "outbox connector runs", connector(inner, around)).await
    };
    let ((), ()) = tokio::try_join!(database, streaming)?;
    let target = Target { endpoints: endpoints.clone(), repository: repository.clone(), names: Names::default() };
    // What this start, or anybody who was ended before, has made anew.
    repair::refill_owed(&target, &mut |line| report.say(line)).await
}

/// Makes topics. Those that were there in an earlier run are lost, which is written down and said.
async fn make_topics(around: &Surroundings, missing: &[TopicSpec]) -> Result<(), Error> {
    let names = Names::default();
    if missing.is_empty() || slot::read_before(&around.endpoints, &names).await?.is_none() {
        return topics::create(&around.endpoints, missing).await;
    }
    topics::make_again(&around.endpoints, &names, missing).await?;
    let list: Vec<&str> = missing.iter().map(|topic| topic.name.as_str()).collect();
    around.report.say(&format!("topics of the earlier runs were gone and are made again: {}", list.join(", ")));
    Ok(())
}

fn say_replaced_ports(inner: &Inner, ports: Ports) {
    let Ports { postgres, kafka, connect } = inner.options.ports;
    for (name, wanted, given) in
        [("postgres", postgres, ports.postgres), ("kafka", kafka, ports.kafka), ("connect", connect, ports.connect)]
    {
        if wanted != given && wanted != 0 {
            inner.report.say(&format!("{name}: port {wanted} is taken, it gets {given}"));
        }
    }
}

/// Starts one server and reports how long it took.
async fn ready(inner: &Inner, name: &str) -> Result<(), Error> {
    let since = Instant::now();
    for key in inner.fleet.resolve(name).map_err(Error::Other)? {
        inner.fleet.start(&key).await.map_err(Error::Other)?;
    }
    inner.report.step(&format!("{name} ready"), since.elapsed());
    Ok(())
}

async fn services(inner: &Arc<Inner>) -> Result<(), Error> {
    let mut open = JoinSet::new();
    for key in inner.fleet.of_kind(Kind::Service) {
        let inner = Arc::clone(inner);
        open.spawn(async move { ready(&inner, &key.name).await });
    }
    while let Some(done) = open.join_next().await {
        done.unwrap_or_else(|error| Err(Error::Other(format!("a start was interrupted: {error}"))))?;
    }
    Ok(())
}

async fn step<T>(inner: &Inner, name: impl Display, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let since = Instant::now();
    let outcome = work.await?;
    inner.report.step(&name.to_string(), since.elapsed());
    Ok(outcome)
}

async fn ensure_slot(endpoints: &Endpoints, data: &DataDir, alarms: &Alarms) -> Result<(), Error> {
    let names = Names::default();
    match slot::find(endpoints, &names).await? {
        Some(slot) if slot.lost => {
            alarms.set(SLOT_LOST, Some(lost_slot(&names)));
            return Ok(());
        }
        Some(_) => {}
        None => {
            create_dir(&data.connect())?;
            let marker = data.forget_offsets();
            std::fs::write(&marker, "").map_err(Error::io(format!("writing {}", marker.display())))?;
            alarms.set(SLOT_REPLACED, slot::read_before(endpoints, &names).await?.map(replaced));
        }
    }
    slot::ensure(endpoints, &names).await.map(drop)
}

/// What is lost with a slot, and what heals it.
fn replaced(before: slot::ReadBefore) -> String {
    let since =
        before.last_heartbeat.map_or_else(|| "before".into(), |at| format!("after {at} UTC, its last heartbeat,"));
    format!(
        "the slot of the earlier runs is gone, a new one is made. What was committed {since} and was not read is not in \
         it; order-api publishes open orders again, 2 minutes after they were placed"
    )
}

async fn connector(inner: &Inner, around: &Surroundings) -> Result<(), Error> {
    let names = Names::default();
    let marker = inner.data.forget_offsets();
    let connector = OutboxConnector::load(&around.repository, &around.endpoints, &names)?;
    connector.apply(marker.exists()).await?;
    if marker.exists() {
        std::fs::remove_file(&marker).map_err(Error::io(format!("removing {}", marker.display())))?;
    }
    connector.until_running().await?;
    slot::until_active(&around.endpoints, &names, Duration::from_secs(60)).await
}
