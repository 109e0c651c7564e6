use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testkit::OtlpReceiver;

use crate::support::{greeter, ready, wait_for_address};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_a_server_span_in_its_callers_trace_and_a_stop_loses_none() {
    let collector = OtlpReceiver::start().await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let port_file = directory.path().join("port");
    let child = greeter()
        .env("HTTP_PORT_FILE", &port_file)
        .env("SHUTDOWN_DELAY_MS", "0")
        .env("SERVICE_INSTANCE", "greeter-1")
        // Traces are whole whatever the log's level.
        .env("LOG_LEVEL", "warn")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint())
        .spawn()
        .unwrap();
    let pid = Pid::from_raw(child.id().cast_signed());
    let address = wait_for_address(&port_file).await;
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

    let spans = collector.spans();
    let span = spans.iter().find(|span| span.name == "GET /api/greetings/{name}").expect("the request's span");
    assert_eq!((span.service.as_str(), span.instance.as_str()), ("greeter", "greeter-1"));
    assert_eq!(span.kind, 2, "a server span");
    assert_eq!(span.trace_id, "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(span.parent_span_id, "00f067aa0ba902b7");
    assert!(span.attributes.contains(&("http.route".to_owned(), "/api/greetings/{name}".to_owned())), "{span:?}");
}
