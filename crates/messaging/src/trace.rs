//! One trace from the first request to the last message: spans are parented on the `traceparent` header and
//! their own context goes on to the messages that they cause.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::TraceContextExt;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::{Envelope, Record};

static ENABLED: AtomicBool = AtomicBool::new(false);

/// Makes spans from now on. Called once, when an exporter is configured; without one a message's
/// `traceparent` is handed on as it came, at no cost.
pub fn enable() {
    ENABLED.store(true, Ordering::Relaxed);
}

/// The span of one message being processed, and the `traceparent` for what it causes.
pub(crate) fn process(group: &str, record: &Record, envelope: &Envelope) -> (Span, Option<String>) {
    if !ENABLED.load(Ordering::Relaxed) {
        return (Span::none(), envelope.traceparent.clone());
    }
    let span = tracing::info_span!(
        "process",
        otel.name = format!("process {}", record.topic),
        otel.kind = "consumer",
        messaging.system = "kafka",
        messaging.operation.name = "process",
        messaging.operation.type = "process",
        messaging.destination.name = record.topic,
        messaging.destination.partition.id = record.partition,
        messaging.consumer.group.name = group,
        messaging.kafka.offset = record.offset,
        messaging.message.id = %envelope.id,
        saga.id = envelope.saga_id.map(tracing::field::display),
        saga.step = envelope.step,
    );
    if let Some(traceparent) = &envelope.traceparent {
        let carrier = HashMap::from([("traceparent".to_owned(), traceparent.clone())]);
        let parent = opentelemetry_sdk::propagation::TraceContextPropagator::new().extract(&carrier);
        if let Err(error) = span.set_parent(parent) {
            tracing::debug!(%error, "a message's span could not be parented");
        }
    }
    let trace = traceparent_of(&span).or_else(|| envelope.traceparent.clone());
    (span, trace)
}

/// The W3C `traceparent` of `span`, when it is recorded.
pub fn traceparent_of(span: &Span) -> Option<String> {
    let context = span.context();
    let context = context.span().span_context().clone();
    context
        .is_valid()
        .then(|| format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags().to_u8()))
}
