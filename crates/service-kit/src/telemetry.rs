//! Logs on stdout, and traces by OTLP when an endpoint is configured.

use std::io::{self, IsTerminal};
use std::time::Duration;

use axum::http::HeaderMap;
use messaging::BoxError;
use opentelemetry::KeyValue;
use opentelemetry::global;
use opentelemetry::propagation::Extractor;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing::level_filters::LevelFilter;
use tracing::{Metadata, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::filter::{EnvFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt};

use crate::Service;
use crate::config::{LogConfig, LogFormat, OtlpConfig};

/// Longest wait for the last spans to leave.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

tokio::task_local! {
    /// The trace of the request being handled, when no span of ours records it.
    static TRACEPARENT: String;
}

/// Telemetry of the process; [`Telemetry::flush`] it last.
#[derive(Debug)]
pub(crate) struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

/// Installs the process's subscriber. Needs a running tokio runtime when traces are exported.
pub(crate) fn init(
    service: &Service,
    instance: &str,
    log: &LogConfig,
    otlp: &OtlpConfig,
) -> Result<Telemetry, BoxError> {
    let events: Box<dyn Layer<Registry> + Send + Sync> = match log.format {
        // The innermost span alone: its fields are what a log line needs, and the list would repeat them.
        LogFormat::Json => {
            fmt::layer().json().flatten_event(true).with_span_list(false).with_writer(io::stdout).boxed()
        }
        LogFormat::Pretty if io::stdout().is_terminal() => fmt::layer().with_writer(io::stdout).boxed(),
        LogFormat::Pretty => fmt::layer().with_ansi(false).with_writer(io::stdout).boxed(),
    };
    let events = events.with_filter(log.level.parse::<EnvFilter>()?);

    let traces = match otlp.endpoint.as_str() {
        "" => None,
        endpoint => Some(provider(service, instance, endpoint, otlp.sample_ratio)?),
    };
    // The log level does not apply here: traces are whole or they are useless.
    let spans = traces.as_ref().map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("chaos-symphony"))
            .with_filter(filter_fn(is_exported).with_max_level_hint(LevelFilter::INFO))
    });
    tracing_subscriber::registry().with(events).with(spans).try_init()?;
    if traces.is_some() {
        global::set_text_map_propagator(TraceContextPropagator::new());
        messaging::trace::enable();
    }
    Ok(Telemetry { traces })
}

fn provider(
    service: &Service,
    instance: &str,
    endpoint: &str,
    sample_ratio: f64,
) -> Result<SdkTracerProvider, BoxError> {
    let exporter =
        SpanExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(Duration::from_secs(5)).build()?;
    let resource = Resource::builder()
        .with_service_name(service.name)
        .with_attribute(KeyValue::new("service.namespace", "chaos-symphony"))
        .with_attribute(KeyValue::new("service.instance.id", instance.to_owned()))
        .with_attribute(KeyValue::new("service.version", crate::VERSION))
        .build();
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(sample_ratio))))
        .with_resource(resource)
        .build())
}

/// The exporter's own libraries make spans too; exporting those would never end.
fn is_exported(metadata: &Metadata<'_>) -> bool {
    const TRANSPORT: &[&str] = &["h2", "hyper", "hyper_util", "tonic", "tower", "opentelemetry"];
    let root = metadata.target().split("::").next().unwrap_or_default();
    let root = root.split('-').next().unwrap_or_default();
    !TRANSPORT.iter().any(|name| root == *name || root.starts_with("opentelemetry"))
}

impl Telemetry {
    /// Sends what is still buffered. It blocks, for a bounded time.
    pub(crate) fn flush(self) {
        if let Some(provider) = self.traces
            && let Err(error) = provider.shutdown_with_timeout(FLUSH_TIMEOUT)
        {
            tracing::warn!(%error, "the last traces are lost");
        }
    }
}

struct Headers<'h>(&'h HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(|name| name.as_str()).collect()
    }
}

/// Parents `span` on the caller's trace, if it sent one.
pub(crate) fn continue_trace(span: &Span, headers: &HeaderMap) {
    if !headers.contains_key("traceparent") {
        return;
    }
    let parent = global::get_text_map_propagator(|propagator| propagator.extract(&Headers(headers)));
    // Without an exporter no layer is there to take it, which is no error.
    let _ = span.set_parent(parent);
}

/// The W3C `traceparent` of what is being handled, for the messages it causes.
///
/// Inside a request there always is one: that of the request's span; when traces are off, the caller's; and
/// when the caller sent none, a new one. So one trace id goes from the POST on in every case. Ask before
/// spawning: a spawned task is outside the request.
pub fn current_traceparent() -> Option<String> {
    messaging::trace::traceparent_of(&Span::current()).or_else(|| TRACEPARENT.try_with(Clone::clone).ok())
}

/// Runs a request's future with its traceparent.
pub(crate) async fn with_traceparent<F: Future>(traceparent: String, request: F) -> F::Output {
    TRACEPARENT.scope(traceparent, request).await
}

/// The caller's `traceparent`, if it is valid, or a new one.
pub(crate) fn incoming_or_new(headers: &HeaderMap) -> String {
    headers
        .get("traceparent")
        .and_then(|value| value.to_str().ok())
        .filter(|value| is_traceparent(value))
        .map_or_else(new_traceparent, str::to_owned)
}

/// The trace id in a valid `traceparent`.
pub(crate) fn trace_id(traceparent: &str) -> &str {
    traceparent.get(3..35).unwrap_or_default()
}

fn new_traceparent() -> String {
    let span = uuid::Uuid::new_v4().simple().to_string();
    format!("00-{}-{}-01", uuid::Uuid::new_v4().simple(), &span[..16])
}

/// Version 00 of <https://www.w3.org/TR/trace-context/>: `00-<32 hex>-<16 hex>-<2 hex>`, ids not zero.
fn is_traceparent(text: &str) -> bool {
    let hex = |part: &str, length| {
        part.len() == length && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let nonzero = |part: &str| part.bytes().any(|b| b != b'0');
    match text.split('-').collect::<Vec<_>>()[..] {
        ["00", trace, span, flags] => {
            hex(trace, 32) && nonzero(trace) && hex(span, 16) && nonzero(span) && hex(flags, 2)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_callers_traceparent_is_kept() {
        let headers = HeaderMap::from_iter([("traceparent".parse().unwrap(), VALID.parse().unwrap())]);
        assert_eq!(incoming_or_new(&headers), VALID);
        assert_eq!(trace_id(VALID), "4bf92f3577b34da6a3ce929d0e0e4736");
    }

    #[test]
    fn an_invalid_traceparent_is_replaced_by_a_valid_one() {
        for wrong in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
        ] {
            let headers = HeaderMap::from_iter([("traceparent".parse().unwrap(), wrong.parse().unwrap())]);
            let given = incoming_or_new(&headers);
            assert!(is_traceparent(&given), "{given}");
            assert_ne!(given, wrong);
        }
    }
}
