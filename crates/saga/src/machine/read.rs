//! What a message on a reply topic says to the machine.

use serde_json::Value;
use uuid::Uuid;

use super::verdict::{Reply, ReplyKind};
use crate::definition::{Answer, Definition, Step};

impl Definition {
    /// What a message on a reply topic says; none when no step has its answers there.
    #[must_use]
    pub fn read_reply(&self, topic: &str, message_id: Uuid, causation_id: Uuid, data: Value) -> Option<Reply> {
        let (index, answer) = self.route(topic)?;
        let step = &self.steps()[index];
        let kind = match answer {
            Answer::Success => ReplyKind::Success,
            Answer::Undone => ReplyKind::Undone,
            Answer::Failure => ReplyKind::Failure { reason: reason(step, &data) },
        };
        Some(Reply { step: step.name.clone(), kind, message_id, causation_id, data })
    }
}

fn reason(step: &Step, data: &Value) -> Option<String> {
    match step.replies.failure.as_ref()?.reason.as_ref()?.find(data)? {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}
