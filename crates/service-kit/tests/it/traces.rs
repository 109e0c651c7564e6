use std::collections::HashMap;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tonic::codegen::tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::support::{greeter, ready, wait_for_address};

/// Passes on what an exporter sends.
struct Collector(mpsc::UnboundedSender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.send(request.into_inner()).map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn strings(attributes: &[KeyValue]) -> HashMap<&str, &str> {
    attributes
        .iter()
        .filter_map(|attribute| match attribute.value.as_ref()?.value.as_ref()? {
            any_value::Value::StringValue(text) => Some((attribute.key.as_str(), text.as_str())),
            _ => None,
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_a_server_span_in_its_callers_trace_and_a_stop_loses_none() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (sender, mut exports) = mpsc::unbounded_channel();
    let collector = Server::builder().add_service(TraceServiceServer::new(Collector(sender)));
    tokio::spawn(collector.serve_with_incoming(TcpListenerStream::new(listener)));

    let directory = tempfile::tempdir().unwrap();
    let port_file = directory.path().join("port");
    let child = greeter()
        .env("HTTP_PORT_FILE", &port_file)
        .env("SHUTDOWN_DELAY_MS", "0")
        .env("SERVICE_INSTANCE", "greeter-1")
        // Traces are whole whatever the log's level.
        .env("LOG_LEVEL", "warn")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)
        .spawn()
        .unwrap();
    let pid = Pid::from_raw(child.id().cast_signed());
    let address = tokio::task::spawn_blocking(move || wait_for_address(&port_file)).await.unwrap();
    let url = format!("http://{address}");
    ready(&url).await;
    let response = reqwest::Client::new()
        .get(format!("{url}/api/greetings/Ada"))
        .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    kill(pid, Signal::SIGTERM).unwrap();
    let ended = tokio::task::spawn_blocking(move || child.wait_with_output()).await.unwrap().unwrap();
    assert_eq!(ended.status.code(), Some(0), "{}", String::from_utf8_lossy(&ended.stdout));

    let export = tokio::time::timeout(Duration::from_secs(10), exports.recv()).await.unwrap().unwrap();
    let spans = &export.resource_spans[0];
    let resource = strings(&spans.resource.as_ref().unwrap().attributes);
    assert_eq!(resource["service.name"], "greeter");
    assert_eq!(resource["service.instance.id"], "greeter-1");

    let span = &spans.scope_spans[0].spans[0];
    assert_eq!(span.name, "GET /api/greetings/{name}");
    assert_eq!(span.kind, 2, "a server span");
    assert_eq!(span.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes());
    assert_eq!(span.parent_span_id, 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes());
    assert_eq!(strings(&span.attributes)["http.route"], "/api/greetings/{name}");
}
