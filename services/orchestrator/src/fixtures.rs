//! A small saga for unit tests, and messages to feed it.

use chrono::{DateTime, TimeDelta, Utc};
use messaging::{Delivery, Envelope};
use saga::{Definition, ids};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::definitions::Pinned;
use crate::inbound::{Inbound, Kind};

/// Two steps, the second one the pivot.
pub(crate) const ORDER_LIKE: &str = "
saga: trip
version: 1
trigger: { topic: trip.booked, type: trip.booked.v1 }
defaults: { deadline: 10s, attempts: 2, undo: { deadline: 10s, attempts: 2, backoff: 1s, maxBackoff: 5m } }
steps:
  - name: hotel
    command: { topic: hotel.requested, type: hotel.requested.v1, data: { city: /trigger/city } }
    replies:
      success: { topic: hotel.reserved, type: hotel.reserved.v1 }
      failure: { topic: hotel.full, type: hotel.full.v1, reason: /reason }
    compensation:
      command: { topic: hotel.cancel.requested, type: hotel.cancel.requested.v1, data: { city: /trigger/city } }
      reply: { topic: hotel.cancelled, type: hotel.cancelled.v1 }
  - name: flight
    after: [hotel]
    pivot: true
    command: { topic: flight.requested, type: flight.requested.v1, data: { room: /steps/hotel/room } }
    replies:
      success: { topic: flight.booked, type: flight.booked.v1 }
      failure: { topic: flight.full, type: flight.full.v1, reason: /reason }
    compensation:
      command: { topic: flight.cancel.requested, type: flight.cancel.requested.v1, data: { city: /trigger/city } }
      reply: { topic: flight.cancelled, type: flight.cancelled.v1 }
ends:
  completed: { topic: trip.completed, type: trip.completed.v1, data: { version: /saga/version } }
  cancelled: { topic: trip.cancelled, type: trip.cancelled.v1, data: { version: /saga/version, reason: /saga/reason } }
  parked: { topic: trip.parked, type: trip.parked.v1, data: { version: /saga/version, reason: /saga/reason } }
";

pub(crate) const SAGA: Uuid = Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0001);
pub(crate) const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

pub(crate) fn definition(yaml: &str) -> Definition {
    Definition::parse(yaml, "trip.yaml").expect("a valid definition")
}

pub(crate) fn pinned() -> Pinned {
    Pinned { id: 7, definition: definition(ORDER_LIKE).into() }
}

/// A time `seconds` after the start of the test's day.
pub(crate) fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::seconds(1_795_255_200 + seconds)
}

fn delivery(topic: &str, id: Uuid, kind: Kind, data: Value) -> Delivery<Inbound> {
    Delivery {
        message: Inbound { saga: SAGA, kind, data },
        envelope: Envelope {
            id,
            event_type: format!("{topic}.v1"),
            source: "/test".to_owned(),
            subject: SAGA.to_string(),
            time: at(0),
            saga_id: Some(SAGA),
            step: None,
            causation_id: None,
            traceparent: Some(TRACE.to_owned()),
        },
        topic: topic.to_owned(),
        partition: 3,
        offset: 0,
        trace: Some(TRACE.to_owned()),
    }
}

pub(crate) fn trigger() -> Delivery<Inbound> {
    delivery("trip.booked", Uuid::from_u128(1), Kind::Trigger, json!({"city": "Paris"}))
}

/// The answer on `topic` to the command of `step`.
pub(crate) fn reply(topic: &str, step: &str, data: Value) -> Delivery<Inbound> {
    let causation = ids::command_id(SAGA, step);
    delivery(topic, ids::reply_id(SAGA, step), Kind::Reply { step: step.to_owned(), causation }, data)
}

/// The answer on `topic` to the undo of `step`.
pub(crate) fn undone(topic: &str, step: &str) -> Delivery<Inbound> {
    let causation = ids::undo_id(SAGA, step);
    delivery(topic, ids::undo_reply_id(SAGA, step), Kind::Reply { step: step.to_owned(), causation }, json!({}))
}
