//! order-api: orders with their outbox, the connector that publishes it, the end events, and the reconciler.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use messaging::{Outgoing, Record};
use saga::Definition;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::log::Publishing;
use crate::member::Member;
use crate::rules::Sabotage;
use crate::surroundings::Surroundings;

/// An order that is pending for so long is published again, then after twice as long each time.
const PENDING_AFTER: TimeDelta = TimeDelta::seconds(120);
const MAX_INTERVAL: TimeDelta = TimeDelta::minutes(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Pending,
    Completed,
    Cancelled,
    Parked,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Order {
    pub(crate) status: Status,
    pub(crate) saga_version: u64,
    created_at: DateTime<Utc>,
    /// When the reconciler looks at it.
    due_at: DateTime<Utc>,
    emissions: u32,
}

/// order-api's database, and what the connector has confirmed of its log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Orders {
    pub(crate) rows: BTreeMap<Uuid, Order>,
    outbox: Vec<Uuid>,
    confirmed: usize,
    /// Off in half of the worlds: what it heals must not happen while Kafka loses nothing.
    reconciles: bool,
}

impl Orders {
    pub(crate) fn new(reconciles: bool) -> Self {
        Orders { reconciles, ..Orders::default() }
    }

    /// One transaction: the order and its outbox row.
    pub(crate) fn place(&mut self, id: Uuid, now: DateTime<Utc>) {
        let due_at = now + PENDING_AFTER;
        let order = Order { status: Status::Pending, saga_version: 0, created_at: now, due_at, emissions: 0 };
        self.rows.insert(id, order);
        self.outbox.push(id);
    }

    /// Every row once more, as after a restore of the connector's offsets.
    pub(crate) fn rewind(&mut self) {
        self.confirmed = 0;
    }

    pub(crate) fn dump(&self) -> String {
        let rows = self.rows.iter().map(|(id, order)| (id, order.status, order.saga_version));
        format!("{:?}", rows.collect::<Vec<_>>())
    }

    /// When the reconciler has something to do.
    pub(crate) fn next_look(&self) -> Option<DateTime<Utc>> {
        let pending = self.rows.values().filter(|order| order.status == Status::Pending && self.reconciles);
        pending.map(|order| order.due_at).min()
    }

    /// Inserts the outbox row again of one order that is due. Tells whether there was one.
    fn reconcile(&mut self, now: DateTime<Utc>) -> bool {
        let mut pending = self.rows.iter_mut().filter(|(_, order)| order.status == Status::Pending && self.reconciles);
        let Some((id, order)) = pending.find(|(_, order)| order.due_at <= now) else { return false };
        order.due_at = now + (PENDING_AFTER * 2_i32.pow(order.emissions.min(16))).min(MAX_INTERVAL);
        order.emissions += 1;
        self.outbox.push(*id);
        true
    }

    /// One statement: of the events of a batch that of the greatest version, if it is greater than the one applied.
    fn apply(&mut self, events: &[End], sabotage: Sabotage) {
        let mut last: BTreeMap<Uuid, &End> = BTreeMap::new();
        for event in events {
            let known = last.entry(event.order).or_insert(event);
            if event.version > known.version || sabotage == Sabotage::AnyVersion {
                *known = event;
            }
        }
        for event in last.into_values() {
            let order = self.rows.get_mut(&event.order).expect("only orders end");
            if event.version > order.saga_version || sabotage == Sabotage::AnyVersion {
                order.status = event.status;
                order.saga_version = event.version;
            }
        }
    }

    fn trigger(&self, id: Uuid, definition: &Definition) -> Outgoing {
        let order = &self.rows[&id];
        let value = json!({ "orderId": id, "customerId": "c-1", "total": 3998, "currency": "EUR" });
        Outgoing {
            topic: definition.trigger().topic.clone(),
            key: id.to_string(),
            id: Uuid::new_v5(&id, b"created"),
            event_type: definition.trigger().event_type.clone(),
            source: "/sim/order-api".to_owned(),
            subject: id.to_string(),
            time: order.created_at,
            saga_id: Some(id),
            definition: None,
            step: None,
            causation_id: None,
            traceparent: None,
            payload: value.to_string().into_bytes(),
        }
    }
}

/// An event at the end of a saga.
struct End {
    order: Uuid,
    status: Status,
    version: u64,
}

impl End {
    fn of(record: &Record) -> Self {
        let value: Value = record.json().expect("JSON");
        let text = |field: &str| value[field].as_str().expect("a text");
        let status = match text("status") {
            "COMPLETED" => Status::Completed,
            "CANCELLED" => Status::Cancelled,
            "PARKED" => Status::Parked,
            other => panic!("no status: {other}"),
        };
        End {
            order: text("orderId").parse().expect("an id"),
            status,
            version: value["sagaVersion"].as_u64().expect("a version"),
        }
    }
}

/// A replica of order-api, as far as it reads Kafka.
#[derive(Debug)]
pub(crate) struct OrderApi {
    pub(crate) member: Member,
    /// Read and not applied.
    gathered: Vec<Record>,
}

impl OrderApi {
    pub(crate) fn new(id: u64, definition: &Definition) -> Self {
        let ends = definition.ends();
        let topics = [&ends.completed, &ends.cancelled, &ends.parked];
        let topics = topics.map(|outlet| (outlet.topic.clone(), outlet.event_type.clone()));
        OrderApi { member: Member::new("order-api", id, topics.into()), gathered: Vec::new() }
    }

    /// Hears of a rebalance, and gives up what it has in hand.
    pub(crate) fn notice(&mut self, around: &mut Surroundings) {
        self.member.notice(&mut around.broker);
        self.gathered.clear();
    }

    /// Goes on to the next point at which it could die. Tells whether there was something to do.
    pub(crate) fn go_on(&mut self, around: &mut Surroundings) -> bool {
        if !self.gathered.is_empty() {
            let records = std::mem::take(&mut self.gathered);
            let events: Vec<End> = records.iter().map(End::of).collect();
            around.orders.apply(&events, around.sabotage);
            self.member.done(&records);
            return true;
        }
        if self.member.commit(&mut around.broker) {
            return true;
        }
        let most = 1 + around.random.below(6);
        self.gathered = self.member.gather(&around.broker, &mut around.random, most);
        if !self.gathered.is_empty() {
            return true;
        }
        let is_reconciled = around.orders.reconcile(around.now);
        if is_reconciled {
            around.seen.insert("a lost message is said again");
        }
        is_reconciled
    }
}

/// Kafka Connect with Debezium: reads the outbox in its order, and confirms now and then how far it came.
#[derive(Debug)]
pub(crate) struct Connect {
    /// The next row.
    next: usize,
    in_flight: Option<Publishing>,
}

impl Connect {
    /// Starts at what was confirmed: the rows after that come once more.
    pub(crate) fn new(around: &Surroundings) -> Self {
        Connect { next: around.orders.confirmed, in_flight: None }
    }

    /// Goes on to the next point at which it could die. Tells whether there was something to do.
    pub(crate) fn go_on(&mut self, around: &mut Surroundings) -> bool {
        if let Some(mut publishing) = self.in_flight.take() {
            match around.publish(&mut publishing) {
                true => self.next += 1,
                false => self.in_flight = Some(publishing),
            }
            return true;
        }
        let id = around.orders.outbox.get(self.next).copied();
        if around.orders.confirmed < self.next && (id.is_none() || around.random.percent(20)) {
            around.orders.confirmed = self.next;
            return true;
        }
        let trigger = id.map(|id| around.orders.trigger(id, &around.definition));
        self.in_flight = trigger.map(|trigger| Publishing::of(vec![trigger]));
        self.in_flight.is_some()
    }
}
