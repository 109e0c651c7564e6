//! Checks the platform's invariants I1 to I8 from what is stored: the databases and the topics.
//!
//! Nothing here asks a service or reads a counter that the code keeps. Under load a check across databases
//! covers only sagas that were at rest before the audit began, so the order of reading matters:
//!
//! 1. what is at rest, and what the outbox holds ([`World::before`]);
//! 2. wait, bounded, until its consequences have arrived: end events, stock shipped, events published;
//! 3. the topics, to their end, and then the dead letters;
//! 4. the participants and orders, each in one snapshot: whatever a message on a topic told of is in there;
//! 5. the orchestrator, in one snapshot: whatever a participant did was asked for in there;
//! 6. what looks overdue, again and again: it may go on.

mod facts;
mod i1;
mod i2;
mod i3;
mod i4;
mod i5;
mod i6;
mod i7;
mod i8;
mod overdue;
mod report;
mod settle;

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use uuid::Uuid;

pub use report::{Count, Finding, Report};

use facts::orders::{Orders, OrdersBefore};
use facts::participants::{Inventory, Payments, Shipment, shipments};
use facts::sagas::{Sagas, SagasBefore};
use facts::topics::Topics;
use overdue::Overdue;

/// What to audit.
#[derive(Clone, Debug)]
pub struct Target {
    /// `host:port` of PostgreSQL, whose superuser needs no password.
    pub postgres: String,
    /// Put before the name of each database; empty outside tests.
    pub database_prefix: String,
    /// `host:port` of a Kafka broker.
    pub kafka: String,
    /// Put before the name of each topic and consumer group; empty outside tests.
    pub topic_prefix: String,
    /// What was at rest when the audit began counts as lost when for so long no more of it has reached everybody, and
    /// what is late when it does not go on for so long.
    pub settle_within: Duration,
    /// Since when everything that an order needs has been ready, if that is known: its time does not begin before.
    pub ready_since: Option<DateTime<Utc>>,
}

/// All that was read.
struct World {
    sagas_before: SagasBefore,
    orders_before: OrdersBefore,
    topics: Topics,
    orders: Orders,
    payments: Payments,
    inventory: Inventory,
    shipments: HashMap<Uuid, Shipment>,
    sagas: Sagas,
    ready_since: Option<DateTime<Utc>>,
    overdue: Overdue,
    /// How long what is late was watched.
    watched: Duration,
}

/// Reads everything, then checks every invariant.
///
/// # Errors
/// When a database or the broker cannot be read: nothing is said about the invariants then.
pub async fn audit(target: &Target) -> anyhow::Result<Report> {
    let world = World::read(target).await?;
    let findings = vec![
        i1::check(&world),
        i2::check(&world),
        i3::check(&world),
        i4::check(&world),
        i5::check(&world),
        i6::check(&world),
        i7::check(&world),
        i8::check(&world),
    ];
    let mut resolved: Vec<Uuid> = world.sagas.resolved.iter().copied().collect();
    resolved.sort();
    Ok(Report { began_at: world.sagas_before.began_at, findings, resolved, warnings: Vec::new() })
}

impl World {
    async fn read(target: &Target) -> anyhow::Result<Self> {
        let sagas_before = SagasBefore::read(target).await?;
        let orders_before = OrdersBefore::read(target).await?;
        settle::wait(target, &sagas_before).await?;
        let topics = settle::published(target, &orders_before).await?;
        let payments = Payments::read(target).await?;
        let inventory = Inventory::read(target).await?;
        let shipments = shipments(target).await?;
        let orders = Orders::read(target).await?;
        let sagas = Sagas::read(target).await?;
        let (overdue, watched, ready_since) = (Overdue::default(), target.settle_within, target.ready_since);
        let mut world = Self {
            sagas_before,
            orders_before,
            topics,
            orders,
            payments,
            inventory,
            shipments,
            sagas,
            ready_since,
            overdue,
            watched,
        };
        world.overdue = overdue::find(&world);
        world.overdue.going_on = settle::moving(target, &world.topics, &mut world.overdue.late).await?;
        Ok(world)
    }

    /// The order sagas that had ended when the audit began, and that no operator declared ended.
    fn ended(&self) -> impl Iterator<Item = &facts::sagas::SagaRow> {
        let before = self.sagas_before.at_rest.iter().filter_map(|saga| self.sagas.sagas.get(&saga.id));
        before.filter(|saga| {
            saga.is_terminal() && self.sagas.runs(saga, "order") && !self.sagas.resolved.contains(&saga.id)
        })
    }
}
