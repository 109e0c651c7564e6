use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{SHORT, Shared, problem, subject};

const KIND: &str = "https://chaossymphony.dev/problems/";

async fn post(url: &str, content_type: &str, body: impl Into<reqwest::Body>) -> reqwest::Response {
    let request = reqwest::Client::new().post(format!("{url}/named")).header("content-type", content_type);
    request.body(body).send().await.unwrap()
}

#[tokio::test]
async fn a_body_over_64_kib_is_a_413_and_one_of_64_kib_is_not() {
    let service = subject(Shared::default(), SHORT).await;
    let of_size = |size: usize| format!("{{\"name\":\"{}\"}}", "x".repeat(size - r#"{"name":""}"#.len()));

    let fits = post(&service.url(), "application/json", of_size(64 * 1024)).await;
    assert_eq!(fits.status(), 200);
    let response = post(&service.url(), "application/json", of_size(65 * 1024)).await;
    assert_eq!(response.status(), 413);
    assert_eq!(problem(response).await["type"], format!("{KIND}body-too-large"));
    // Far beyond what the sockets buffer: the client still gets to read the answer.
    let response = post(&service.url(), "application/json", of_size(900 * 1024)).await;
    assert_eq!(response.status(), 413);
    service.stop().await;
}

#[tokio::test]
async fn a_body_over_64_kib_of_unknown_length_is_a_413() {
    let service = subject(Shared::default(), SHORT).await;
    let mut stream = TcpStream::connect(service.addr).await.unwrap();
    stream
        .write_all(
            b"POST /named HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n",
        )
        .await
        .unwrap();
    let chunk = format!("{:x}\r\n{}\r\n", 1024, "x".repeat(1024));
    for _ in 0..65 {
        stream.write_all(chunk.as_bytes()).await.unwrap();
    }
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 413");
    service.stop().await;
}

#[tokio::test]
async fn what_is_no_json_is_a_415_and_broken_json_a_400() {
    let service = subject(Shared::default(), SHORT).await;
    let url = service.url();
    let valid = r#"{"name":"Ada"}"#;

    for accepted in ["application/json", "application/json; charset=utf-8", "application/merge-patch+json"] {
        assert_eq!(post(&url, accepted, valid).await.status(), 200, "{accepted}");
    }
    let response = post(&url, "text/plain", valid).await;
    assert_eq!(response.status(), 415);
    assert_eq!(problem(response).await["type"], format!("{KIND}unsupported-media-type"));

    let deep = "[".repeat(1000) + &"]".repeat(1000);
    for broken in ["", "{", "{\"name\":NaN}", r#"{"name":"\ud800"}"#, &deep] {
        let response = post(&url, "application/json", broken.to_owned()).await;
        assert_eq!(response.status(), 400, "{broken}");
        assert_eq!(problem(response).await["type"], format!("{KIND}malformed-request"));
    }
    service.stop().await;
}

#[tokio::test]
async fn a_field_that_does_not_fit_is_named() {
    let service = subject(Shared::default(), SHORT).await;
    for (body, pointer) in [(r#"{"name":1}"#, "/name"), (r#"{"name":"a\u0000"}"#, "/name"), ("{}", "")] {
        let response = post(&service.url(), "application/json", body).await;
        assert_eq!(response.status(), 422, "{body}");
        assert_eq!(problem(response).await["errors"][0]["pointer"], pointer, "{body}");
    }
    service.stop().await;
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems() {
    let service = subject(Shared::default(), SHORT).await;
    let url = service.url();

    let response = reqwest::get(format!("{url}/nothing")).await.unwrap();
    assert_eq!(response.status(), 404);
    assert_eq!(problem(response).await["type"], format!("{KIND}not-found"));

    for path in ["/items", "/readyz"] {
        let response = reqwest::Client::new().delete(format!("{url}{path}")).send().await.unwrap();
        assert_eq!(response.status(), 405);
        assert_eq!(response.headers()["allow"], "GET,HEAD", "{path}");
        assert_eq!(problem(response).await["type"], format!("{KIND}method-not-allowed"));
    }
    service.stop().await;
}

#[tokio::test]
async fn parameters_that_do_not_fit_are_a_400() {
    let service = subject(Shared::default(), SHORT).await;
    for path in ["/items?limit=many", "/items?limit=0", "/items?limit=501", "/items/one"] {
        let response = reqwest::get(format!("{}{path}", service.url())).await.unwrap();
        assert_eq!(response.status(), 400, "{path}");
        problem(response).await;
    }
    for (path, parameter) in [
        ("/items?limits=2", "limits"),
        ("/items?limit=2&limit%00=2", "limit\0"),
        ("/items?limit=%00", "limit"),
        ("/items/7%00", "number"),
    ] {
        let response = reqwest::get(format!("{}{path}", service.url())).await.unwrap();
        assert_eq!(response.status(), 400, "{path}");
        assert_eq!(problem(response).await["errors"][0]["parameter"], parameter, "{path}");
    }
    let page: Value = reqwest::get(format!("{}/items?limit=2", service.url())).await.unwrap().json().await.unwrap();
    assert_eq!(page["items"], json!([0, 1]));
    assert!(page["nextCursor"].is_string());
    service.stop().await;
}

#[tokio::test]
async fn a_panic_is_a_500_that_tells_nothing_and_the_service_goes_on() {
    let service = subject(Shared::default(), SHORT).await;
    let response = reqwest::get(format!("{}/panic", service.url())).await.unwrap();
    assert_eq!(response.status(), 500);
    let body = problem(response).await;
    assert_eq!(body["type"], format!("{KIND}internal"));
    assert!(!body.to_string().contains("secret"), "{body}");
    assert_eq!(reqwest::get(format!("{}/items", service.url())).await.unwrap().status(), 200);
    service.stop().await;
}

#[tokio::test]
async fn a_slow_request_is_a_503() {
    let service = subject(Shared::default(), SHORT).await;
    let response = reqwest::get(format!("{}/wait", service.url())).await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(problem(response).await["type"], format!("{KIND}timeout"));
    service.stop().await;
}

#[tokio::test]
async fn requests_over_the_limit_are_shed_and_health_is_not() {
    let shared = Shared::default();
    let overrides = [SHORT, &[("HTTP_REQUEST_TIMEOUT_MS", "15000")]].concat();
    let service = subject(shared.clone(), &overrides).await;
    let url = service.url();
    let busy: Vec<_> = (0..2).map(|_| tokio::spawn(reqwest::get(format!("{url}/wait")))).collect();
    shared.entered(2).await;

    let response = reqwest::get(format!("{url}/items")).await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(problem(response).await["type"], format!("{KIND}overloaded"));
    assert_eq!(reqwest::get(format!("{url}/readyz")).await.unwrap().status(), 200);

    shared.release.cancel();
    for request in busy {
        assert_eq!(request.await.unwrap().unwrap().status(), 200);
    }
    assert_eq!(reqwest::get(format!("{url}/items")).await.unwrap().status(), 200);
    service.stop().await;
}

#[tokio::test]
async fn a_client_that_sends_its_head_too_slowly_is_cut_off() {
    let service = subject(Shared::default(), SHORT).await;
    let mut stream = TcpStream::connect(service.addr).await.unwrap();
    let began = Instant::now();
    stream.write_all(b"GET /items HTTP/1.1\r\nhost: x\r\nx-slow: ").await.unwrap();
    let mut answer = Vec::new();
    // It ends, by a closed or a reset connection, and not with an answer to the unfinished request.
    let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await.unwrap();
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{answer:?}");
    assert!(began.elapsed() >= Duration::from_millis(150), "cut off at {:?}", began.elapsed());
    service.stop().await;
}

#[tokio::test]
async fn one_connection_serves_many_requests() {
    let service = subject(Shared::default(), SHORT).await;
    let mut stream = TcpStream::connect(service.addr).await.unwrap();
    for _ in 0..3 {
        stream.write_all(b"GET /items/7 HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut buffer = [0; 1024];
        let read = stream.read(&mut buffer).await.unwrap();
        let text = String::from_utf8_lossy(&buffer[..read]);
        assert!(text.starts_with("HTTP/1.1 200") && text.ends_with('7'), "{text}");
    }
    service.stop().await;
}

#[tokio::test]
async fn health_metrics_and_documentation_are_served() {
    let service = subject(Shared::default(), SHORT).await;
    let get = async |path: &str| reqwest::get(format!("{}{path}", service.url())).await.unwrap();

    for path in ["/livez", "/health", "/readyz", "/ready", "/readyz?verbose"] {
        let response = get(path).await;
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(response.headers()["content-type"], "application/json", "{path}");
    }

    let document: Value = get("/openapi.json").await.json().await.unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{}", document["openapi"]);
    assert_eq!(document["info"]["title"], "subject");
    assert!(document["paths"]["/items/{number}"]["get"].is_object());
    assert!(document.get("servers").is_none());

    let page = get("/docs/").await;
    assert_eq!(page.status(), 200);
    assert!(page.text().await.unwrap().contains("swagger-ui"));

    assert_eq!(get("/items/7").await.status(), 200);
    assert_eq!(get("/nothing/at/all").await.status(), 404);
    let text = get("/metrics").await.text().await.unwrap();
    for part in [
        "http_server_request_duration_seconds_count{http_request_method=\"GET\",http_response_status_code=\"200\",http_route=\"/items/{number}\"}",
        "http_route=\"unmatched\"",
        "process_resident_memory_bytes",
        "build_info{service=\"subject\",version=\"",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert!(!text.contains("/nothing"), "a path became a label");
    service.stop().await;
}

#[tokio::test]
async fn one_trace_goes_through_a_request() {
    const CALLERS: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let service = subject(Shared::default(), SHORT).await;
    let url = format!("{}/trace", service.url());

    let traced = reqwest::Client::new().get(&url).header("traceparent", CALLERS).send().await.unwrap();
    assert_eq!(traced.json::<Value>().await.unwrap(), json!([CALLERS, CALLERS]));

    let untraced: Vec<String> = reqwest::get(&url).await.unwrap().json().await.unwrap();
    assert_eq!(untraced[0].len(), CALLERS.len());
    assert_eq!(untraced[0], untraced[1]);
    service.stop().await;
}

#[tokio::test]
async fn a_taken_port_is_an_error_that_names_it() {
    let service = subject(Shared::default(), SHORT).await;
    let SocketAddr::V4(address) = service.addr else { panic!("IPv4 was configured") };
    let port = address.port().to_string();
    let error = crate::support::try_subject(&[("HTTP_PORT", &port)]).await.unwrap_err();
    assert_eq!(error.to_string(), format!("cannot listen on 127.0.0.1:{port}"));
    service.stop().await;
}
