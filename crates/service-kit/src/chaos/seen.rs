use std::borrow::Cow;

use messaging::{Outgoing, Record};

/// The name of the saga's definition; on what the orchestrator sends.
const DEFINITION: &str = "ce_sagadefinition";
/// What the topics of a canary end in.
const CANARY: &str = ".canary";

/// A message as a fault sees it: one that came, or one that is about to go.
#[derive(Clone, Copy)]
pub(super) enum Seen<'m> {
    In(&'m Record),
    Out(&'m Outgoing),
}

impl<'m> Seen<'m> {
    pub(super) fn topic(self) -> &'m str {
        match self {
            Seen::In(record) => &record.topic,
            Seen::Out(message) => &message.topic,
        }
    }

    /// The topic without what makes it the canary's, if it is one of the canary's.
    pub(super) fn canary_of(self) -> Option<&'m str> {
        self.topic().strip_suffix(CANARY)
    }

    pub(super) fn key(self) -> Option<&'m str> {
        match self {
            Seen::In(record) => record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok()),
            Seen::Out(message) => Some(&message.key),
        }
    }

    pub(super) fn step(self) -> Option<&'m str> {
        match self {
            Seen::In(record) => record.header("ce_step"),
            Seen::Out(message) => message.step.as_deref(),
        }
    }

    pub(super) fn definition(self) -> Option<Cow<'m, str>> {
        self.header(DEFINITION)
    }

    pub(super) fn traceparent(self) -> Option<&'m str> {
        match self {
            Seen::In(record) => record.header("traceparent"),
            Seen::Out(message) => message.traceparent.as_deref(),
        }
    }

    /// The header `name`, if it holds text.
    pub(super) fn header(self, name: &str) -> Option<Cow<'m, str>> {
        match self {
            Seen::In(record) => record.header(name).map(Cow::Borrowed),
            Seen::Out(message) => {
                message.attributes().into_iter().find_map(|(header, value)| (header == name).then_some(value))
            }
        }
    }

    /// Names this delivery of it: the same one always draws the same lot.
    pub(super) fn place(self) -> String {
        match self {
            Seen::In(record) => format!("{}/{}@{}", record.topic, record.partition, record.offset),
            Seen::Out(message) => message.id.to_string(),
        }
    }
}
