//! Messages a saga sends. Each is put together from the state alone, so that it can be made again at any
//! time and is the same, byte for byte.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::state::{Saga, SagaState};
use crate::definition::{Definition, Outlet, Pointer, Source, Step, Template, descend, write_canonical};
use crate::ids;

/// A message to send. Its key is the subject of the saga.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub id: Uuid,
    pub topic: String,
    pub event_type: String,
    /// The step it asks for; none for the events at the end.
    pub step: Option<String>,
    /// When it was first sent.
    pub time: DateTime<Utc>,
    pub data: Value,
}

impl Message {
    /// The value as it goes over the wire: JSON with sorted keys, so that values which were read back from a
    /// store that sorts otherwise give the same bytes.
    #[must_use]
    pub fn payload(&self) -> Vec<u8> {
        let mut json = String::new();
        write_canonical(&self.data, &mut json);
        json.into_bytes()
    }
}

/// The command of a step that has been requested.
pub(super) fn command(saga: &Saga, step: &Step, time: DateTime<Utc>) -> Message {
    let id = ids::command_id(saga.id, &step.name);
    build(saga, &step.command, id, Some(step), time)
}

/// The undo of a step, from the outlet of its compensation.
pub(super) fn undo(saga: &Saga, step: &Step, outlet: &Outlet, time: DateTime<Utc>) -> Message {
    let id = ids::undo_id(saga.id, &step.name);
    build(saga, outlet, id, Some(step), time)
}

/// The event that tells that the saga is at rest; none while it moves.
pub(super) fn end_event(definition: &Definition, saga: &Saga) -> Option<Message> {
    let ends = definition.ends();
    let outlet = match saga.state {
        SagaState::Completed => &ends.completed,
        SagaState::Compensated => &ends.cancelled,
        SagaState::Parked => &ends.parked,
        SagaState::Running | SagaState::Compensating => return None,
    };
    // While a saga is at rest its version stays, so that this is always the version that brought it to rest.
    let id = ids::end_event_id(saga.id, &outlet.topic, saga.version);
    Some(build(saga, outlet, id, None, saga.updated_at))
}

fn build(saga: &Saga, outlet: &Outlet, id: Uuid, step: Option<&Step>, time: DateTime<Utc>) -> Message {
    Message {
        id,
        topic: outlet.topic.clone(),
        event_type: outlet.event_type.clone(),
        step: step.map(|step| step.name.clone()),
        time,
        data: fill(saga, &outlet.data),
    }
}

fn fill(saga: &Saga, template: &Template) -> Value {
    let value_of = |source: &Source| match source {
        Source::Constant { value } => Some(value.clone()),
        Source::Pointer(pointer) => look_up(saga, pointer),
    };
    let fields: Map<String, Value> =
        template.iter().filter_map(|(name, source)| Some((name.clone(), value_of(source)?))).collect();
    Value::Object(fields)
}

/// The checker lets commands use nothing of the saga but its id: version and reason change between two
/// sendings of the same command, but not while a saga is at rest.
fn look_up(saga: &Saga, pointer: &Pointer) -> Option<Value> {
    match pointer.tokens() {
        [root, rest @ ..] if root == "trigger" => descend(&saga.trigger, rest).cloned(),
        [root, step, rest @ ..] if root == "steps" => descend(saga.outputs.get(step)?, rest).cloned(),
        [root, field] if root == "saga" => match field.as_str() {
            "id" => Some(Value::from(saga.id.to_string())),
            "version" => Some(Value::from(saga.version)),
            "reason" => saga.reason.clone().map(Value::from),
            _ => None,
        },
        _ => None,
    }
}
