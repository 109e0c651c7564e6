use std::borrow::Cow;

use chrono::{DateTime, SecondsFormat, Utc};
use rdkafka::message::{Header, OwnedHeaders};
use uuid::Uuid;

use crate::Delivery;

/// A message to publish. Built from stored rows only, so that building it again gives the same bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Topic without the deployment's prefix.
    pub topic: String,
    /// Kafka key: the saga's subject (the order id).
    pub key: String,
    /// `ce_id`, deterministic.
    pub id: Uuid,
    /// `ce_type`.
    pub event_type: String,
    /// `ce_source`.
    pub source: String,
    /// `ce_subject`; equal to the key.
    pub subject: String,
    /// `ce_time`, from the stored row.
    pub time: DateTime<Utc>,
    /// `ce_sagaid`.
    pub saga_id: Option<Uuid>,
    /// `ce_sagadefinition`: the name of the saga's definition, on what its orchestrator sends.
    pub definition: Option<String>,
    /// `ce_step`.
    pub step: Option<String>,
    /// `ce_causationid`: the command answered.
    pub causation_id: Option<Uuid>,
    /// W3C trace context of what caused it.
    pub traceparent: Option<String>,
    /// The JSON value.
    pub payload: Vec<u8>,
}

impl Outgoing {
    /// The answer to `command`: same key, saga and step, caused by it.
    pub fn reply<M>(
        command: &Delivery<M>,
        id: Uuid,
        topic: (&str, &str),
        source: &str,
        time: DateTime<Utc>,
        payload: Vec<u8>,
    ) -> Self {
        let (topic, event_type) = topic;
        Outgoing {
            topic: topic.to_owned(),
            key: command.envelope.subject.clone(),
            id,
            event_type: event_type.to_owned(),
            source: source.to_owned(),
            subject: command.envelope.subject.clone(),
            time,
            saga_id: command.envelope.saga_id,
            definition: None,
            step: command.envelope.step.clone(),
            causation_id: Some(command.envelope.id),
            traceparent: command.trace.clone(),
            payload,
        }
    }

    /// The CloudEvents attributes as they go over the wire: headers and their text, in a fixed order.
    pub fn attributes(&self) -> Vec<(&'static str, Cow<'_, str>)> {
        let mut attributes = Vec::with_capacity(12);
        attributes.extend([
            ("ce_specversion", Cow::Borrowed("1.0")),
            ("ce_id", self.id.to_string().into()),
            ("ce_type", self.event_type.as_str().into()),
            ("ce_source", self.source.as_str().into()),
            ("ce_subject", self.subject.as_str().into()),
            ("ce_time", self.time.to_rfc3339_opts(SecondsFormat::Micros, true).into()),
            ("content-type", "application/json".into()),
        ]);
        attributes.extend(self.saga_id.map(|saga| ("ce_sagaid", saga.to_string().into())));
        attributes.extend(self.definition.as_deref().map(|name| ("ce_sagadefinition", name.into())));
        attributes.extend(self.step.as_deref().map(|step| ("ce_step", step.into())));
        attributes.extend(self.causation_id.map(|cause| ("ce_causationid", cause.to_string().into())));
        attributes.extend(self.traceparent.as_deref().map(|trace| ("traceparent", trace.into())));
        attributes
    }

    pub(crate) fn headers(&self) -> OwnedHeaders {
        let attributes = self.attributes();
        let headers = OwnedHeaders::new_with_capacity(attributes.len());
        attributes
            .iter()
            .fold(headers, |headers, (key, value)| headers.insert(Header { key, value: Some(value.as_ref()) }))
    }
}
