//! An OTLP collector (gRPC) that keeps every span in memory.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, transport::Server};

/// A span as a service exported it; ids in lower-case hex, as in `traceparent`.
#[derive(Clone, Debug)]
pub struct Span {
    /// The `service.name` of the exporter's resource.
    pub service: String,
    /// The `service.instance.id` of the exporter's resource; empty without one.
    pub instance: String,
    pub name: String,
    /// 2 is a server span, as in OTLP.
    pub kind: i32,
    pub trace_id: String,
    pub span_id: String,
    /// Empty for a root span.
    pub parent_span_id: String,
    /// Trace ids this span is linked to (a batch has many causes and one span).
    pub linked_traces: Vec<String>,
    /// The attributes that are strings.
    pub attributes: Vec<(String, String)>,
}

/// The receiver; it stops when dropped.
pub struct OtlpReceiver {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<Span>>>,
    _stop: DropGuard,
}

impl OtlpReceiver {
    /// Listens on a free port of the loopback interface.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let spans = Arc::new(Mutex::new(Vec::new()));
        let stop = CancellationToken::new();
        let server = Server::builder().add_service(TraceServiceServer::new(Collector { spans: Arc::clone(&spans) }));
        let stopped = stop.clone().cancelled_owned();
        tokio::spawn(async move {
            if let Err(error) = server.serve_with_incoming_shutdown(TcpIncoming::from(listener), stopped).await {
                eprintln!("the OTLP receiver ended: {error}");
            }
        });
        Ok(Self { address, spans, _stop: stop.drop_guard() })
    }

    /// For `OTLP_ENDPOINT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every span received so far.
    pub fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct Collector {
    spans: Arc<Mutex<Vec<Span>>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut received = Vec::new();
        for resource in request.into_inner().resource_spans {
            let resource_attributes = strings(&resource.resource.map(|r| r.attributes).unwrap_or_default());
            let of_resource = |name: &str| {
                let found = resource_attributes.iter().find(|(key, _)| key == name);
                found.map(|(_, value)| value.clone()).unwrap_or_default()
            };
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                received.push(Span {
                    service: of_resource("service.name"),
                    instance: of_resource("service.instance.id"),
                    name: span.name,
                    kind: span.kind,
                    trace_id: hex(&span.trace_id),
                    span_id: hex(&span.span_id),
                    parent_span_id: hex(&span.parent_span_id),
                    linked_traces: span.links.iter().map(|link| hex(&link.trace_id)).collect(),
                    attributes: strings(&span.attributes),
                });
            }
        }
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).extend(received);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn strings(attributes: &[KeyValue]) -> Vec<(String, String)> {
    let text = |attribute: &KeyValue| match attribute.value.as_ref()?.value.as_ref()? {
        any_value::Value::StringValue(value) => Some((attribute.key.clone(), value.clone())),
        _ => None,
    };
    attributes.iter().filter_map(text).collect()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes every write");
        text
    })
}
