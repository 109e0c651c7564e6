//! From the machine's messages to Kafka's.

use messaging::Outgoing;
use saga::Message;
use uuid::Uuid;

/// `ce_source` of everything the orchestrator sends.
const SOURCE: &str = "/chaos-symphony/orchestrator";

/// `message` of `saga`, an instance of `definition`, as it is published. All of it but the trace is made from stored rows, so that making it again
/// gives the same bytes.
pub(crate) fn outgoing(definition: &str, saga: Uuid, message: Message, trace: Option<&str>) -> Outgoing {
    let subject = saga.to_string();
    let payload = message.payload();
    Outgoing {
        topic: message.topic,
        key: subject.clone(),
        id: message.id,
        event_type: message.event_type,
        source: SOURCE.to_owned(),
        subject,
        time: message.time,
        saga_id: Some(saga),
        definition: Some(definition.to_owned()),
        step: message.step,
        causation_id: None,
        traceparent: trace.map(str::to_owned),
        payload,
    }
}
