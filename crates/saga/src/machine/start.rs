//! The first transition.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::Value;
use uuid::Uuid;

use super::draft::{Draft, Note};
use super::state::{Saga, SagaState, StepRun};
use super::timeline::EntryKind;
use super::verdict::Transition;
use super::{forward, whole_millis};
use crate::definition::Definition;

/// Starts a saga: version 1, with the commands of every step that comes after no other.
///
/// `id` is the saga's own id, `trigger` the value of the message `message_id` that starts it, `now` the time
/// of the start. The same trigger for a saga that is already there is no start: send
/// [`outstanding`](super::outstanding) instead.
#[must_use]
pub fn start(definition: &Definition, id: Uuid, trigger: Value, message_id: Uuid, now: DateTime<Utc>) -> Transition {
    let now = whole_millis(now);
    let saga = Saga {
        id,
        version: 1,
        state: SagaState::Running,
        reason: None,
        cause: None,
        steps: vec![StepRun::default(); definition.steps().len()],
        started_at: now,
        updated_at: now,
        trigger: Arc::new(trigger.clone()),
        outputs: BTreeMap::new(),
    };
    let mut draft = Draft::of(definition, saga, now);
    forward::advance(&mut draft);
    // () => RUNNING
    draft.finish(EntryKind::Started, Note { message_id: Some(message_id), data: Some(trigger), ..Note::default() })
}
