use std::collections::HashMap;

use opentelemetry::propagation::TextMapPropagator;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::fault::FaultRecord;

/// Leaves a span of no length in the trace of a message: what was done to it, and by which fault. A span of its own,
/// since a message that is dropped or put back has none here. Does nothing where nobody exports traces.
pub(super) fn mark(fault: &FaultRecord, topic: &str, traceparent: Option<&str>) {
    let Some(traceparent) = traceparent else { return };
    let kind = fault.fault.name();
    let span = tracing::info_span!(
        parent: None,
        "fault",
        otel.name = format!("fault {kind}"),
        chaos.fault = %fault.id,
        chaos.type = kind,
        messaging.destination.name = topic,
    );
    let carrier = HashMap::from([("traceparent".to_owned(), traceparent.to_owned())]);
    if let Err(error) = span.set_parent(TraceContextPropagator::new().extract(&carrier)) {
        tracing::trace!(%error, "the span of a fault has no trace");
    }
}
