//! Statuses and bodies are Toxiproxy's.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Proxy, echo, round_trip, server};

const NOTHING: Value = Value::Null;

#[tokio::test]
async fn proxies_are_made_shown_changed_and_removed() {
    let proxy = Proxy::start().await;
    let upstream = echo().await.to_string();
    let new = json!({ "name": "db", "listen": "localhost:0", "upstream": upstream, "enabled": true, "toxics": null });
    let (status, made) = proxy.ask(Method::POST, "/proxies", &new).await;
    assert_eq!(status, StatusCode::CREATED);
    let listen = made["listen"].as_str().expect("an address").to_owned();
    let shown = json!({ "name": "db", "listen": listen, "upstream": upstream, "enabled": true, "toxics": [] });
    assert_eq!(made, shown);
    assert!(listen.starts_with("127.0.0.1:") && !listen.ends_with(":0"), "{listen}");
    assert_eq!(proxy.get("/proxies").await, json!({ "db": shown }));
    assert_eq!(proxy.get("/proxies/db").await, shown);

    for method in [Method::POST, Method::PATCH] {
        let (status, changed) = proxy.ask(method.clone(), "/proxies/db", &json!({ "enabled": false })).await;
        assert_eq!((status, &changed["enabled"], &changed["listen"]), (StatusCode::OK, &json!(false), &json!(listen)));
        tokio::net::TcpStream::connect(&listen).await.expect_err("nobody listens");
        // What Go's client sends: everything it knows, with the toxics, which are not changed here.
        let (status, changed) = proxy.ask(method, "/proxies/db", &shown).await;
        assert_eq!((status, changed), (StatusCode::OK, shown.clone()));
        let mut stream = tokio::net::TcpStream::connect(&listen).await.expect("a connection");
        assert_eq!(round_trip(&mut stream, b"hello").await.expect("an echo"), b"hello");
    }
    let (status, _) = proxy.ask(Method::DELETE, "/proxies/db", &NOTHING).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    assert_eq!(proxy.get("/proxies").await, json!({}));
}

#[tokio::test]
async fn toxics_are_made_shown_changed_and_removed() {
    let proxy = Proxy::start().await;
    let upstream = echo().await.to_string();
    proxy.ask(Method::POST, "/proxies", &json!({ "name": "db", "upstream": upstream })).await;
    let (status, made) = proxy
        .ask(Method::POST, "/proxies/db/toxics", &json!({ "type": "latency", "attributes": { "latency": 5 } }))
        .await;
    let shown = json!({
        "name": "latency_downstream", "type": "latency", "stream": "downstream", "toxicity": 1.0,
        "attributes": { "latency": 5, "jitter": 0 },
    });
    assert_eq!((status, &made), (StatusCode::OK, &shown));
    let up = json!({ "name": "up", "type": "timeout", "stream": "Upstream", "toxicity": 0.5, "attributes": null });
    let (status, made) = proxy.ask(Method::POST, "/proxies/db/toxics", &up).await;
    assert_eq!(
        (status, &made["attributes"], &made["stream"]),
        (StatusCode::OK, &json!({ "timeout": 0 }), &json!("Upstream"))
    );
    let list = proxy.get("/proxies/db/toxics").await;
    assert_eq!(list, json!([made, shown]), "the upstream direction comes first");
    assert_eq!(proxy.get("/proxies/db").await["toxics"], list);

    for (method, latency) in [(Method::POST, 7), (Method::PATCH, 9)] {
        let changes = json!({ "attributes": { "latency": latency }, "toxicity": 0.25 });
        let (status, changed) = proxy.ask(method, "/proxies/db/toxics/latency_downstream", &changes).await;
        assert_eq!((status, &changed["toxicity"]), (StatusCode::OK, &json!(0.25)));
        assert_eq!(changed["attributes"], json!({ "latency": latency, "jitter": 0 }));
        assert_eq!(proxy.get("/proxies/db/toxics/latency_downstream").await, changed);
    }
    let (status, body) = proxy.ask(Method::DELETE, "/proxies/db/toxics/up", &NOTHING).await;
    assert_eq!((status, body), (StatusCode::NO_CONTENT, NOTHING));
    proxy.ask(Method::PATCH, "/proxies/db", &json!({ "enabled": false })).await;
    let (status, body) = proxy.ask(Method::POST, "/reset", &NOTHING).await;
    assert_eq!((status, body), (StatusCode::NO_CONTENT, NOTHING));
    let db = proxy.get("/proxies/db").await;
    assert_eq!((&db["enabled"], &db["toxics"]), (&json!(true), &json!([])));
}

#[tokio::test]
async fn refusals_have_toxiproxys_words_and_statuses() {
    let proxy = Proxy::start().await;
    let upstream = echo().await.to_string();
    let db = json!({ "name": "db", "upstream": upstream, "toxics": [{ "type": "noop" }] });
    proxy.ask(Method::POST, "/proxies", &db).await;
    let cases = [
        (Method::GET, "/proxies/x", NOTHING, 404, "proxy not found"),
        (Method::PATCH, "/proxies/x", json!({}), 404, "proxy not found"),
        (Method::DELETE, "/proxies/x", NOTHING, 404, "proxy not found"),
        (Method::GET, "/proxies/x/toxics", NOTHING, 404, "proxy not found"),
        (Method::POST, "/proxies/x/toxics", json!({ "type": "noop" }), 404, "proxy not found"),
        (Method::GET, "/proxies/db/toxics/x", NOTHING, 404, "toxic not found"),
        (Method::POST, "/proxies/db/toxics/x", json!({}), 404, "toxic not found"),
        (Method::DELETE, "/proxies/db/toxics/x", NOTHING, 404, "toxic not found"),
        (Method::POST, "/proxies", db.clone(), 409, "proxy already exists"),
        (Method::POST, "/proxies", json!({ "upstream": upstream }), 400, "missing required field: name"),
        (Method::POST, "/proxies", json!({ "name": "x" }), 400, "missing required field: upstream"),
        (Method::POST, "/populate", json!([{ "name": "x" }]), 400, "missing required field: upstream at proxy 1"),
        (Method::POST, "/proxies/db/toxics", json!({ "type": "noop" }), 409, "toxic already exists"),
        (Method::POST, "/proxies/db/toxics", json!({ "type": "gremlins" }), 400, "invalid toxic type"),
        (
            Method::POST,
            "/proxies/db/toxics",
            json!({ "type": "noop", "stream": "sideways" }),
            400,
            "stream was invalid, can be either upstream or downstream",
        ),
    ];
    for (method, path, body, status, error) in cases {
        let (got, answer) = proxy.ask(method.clone(), path, &body).await;
        assert_eq!(got.as_u16(), status, "{method} {path} {body}: {answer}");
        assert_eq!((&answer["error"], &answer["status"]), (&json!(error), &json!(status)), "{method} {path} {body}");
    }
    let wrong = json!({ "type": "latency", "attributes": { "latency": "1s" } }).to_string();
    for (path, body) in
        [("/proxies", "{"), ("/proxies", ""), ("/populate", "{}"), ("/proxies/db/toxics", wrong.as_str())]
    {
        let (status, answer) = proxy.ask_text(Method::POST, path, body.to_owned()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path} {body}");
        assert!(answer["error"].as_str().is_some_and(|error| error.starts_with("bad request body: ")), "{answer}");
    }
    assert_eq!(proxy.get("/proxies/db/toxics").await.as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_list_of_proxies_is_made_and_one_that_is_there_stays() {
    let proxy = Proxy::start().await;
    let upstream = echo().await.to_string();
    let one = |name: &str, upstream: &str| json!({ "name": name, "listen": "", "upstream": upstream });
    let (status, made) = proxy.ask(Method::POST, "/populate", &json!([one("a", &upstream), one("b", &upstream)])).await;
    assert_eq!((status, made["proxies"].as_array().map(Vec::len)), (StatusCode::CREATED, Some(2)));
    proxy.add("a", json!({ "type": "noop" })).await;
    proxy.add("b", json!({ "type": "noop" })).await;

    let listens = [made["proxies"][0]["listen"].clone(), made["proxies"][1]["listen"].clone()];
    let again = json!([
        { "name": "a", "listen": listens[0], "upstream": upstream },
        { "name": "b", "listen": listens[1], "upstream": "127.0.0.1:9", "enabled": false },
    ]);
    let (status, made) = proxy.ask(Method::POST, "/populate", &again).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    assert_eq!(made["proxies"][0]["toxics"].as_array().map(Vec::len), Some(1), "it is the same one");
    assert_eq!((&made["proxies"][1]["enabled"], &made["proxies"][1]["toxics"]), (&json!(false), &json!([])));

    let (listener, taken) = server().await;
    let list = json!([one("c", &upstream), { "name": "d", "listen": taken.to_string(), "upstream": upstream }]);
    let (status, answer) = proxy.ask(Method::POST, "/populate", &list).await;
    assert_eq!((status.as_u16(), &answer["status"]), (500, &json!(500)), "{answer}");
    assert_eq!(answer["proxies"].as_array().map(Vec::len), Some(1), "the first was made: {answer}");

    // One that cannot be replaced goes on as it was, and stands in nobody's way.
    let moved = json!([{ "name": "a", "listen": taken.to_string(), "upstream": upstream }]);
    let (status, answer) = proxy.ask(Method::POST, "/populate", &moved).await;
    assert_eq!((status.as_u16(), &answer["proxies"]), (500, &json!([])), "{answer}");
    let (status, answer) = proxy.ask(Method::POST, "/reset", &NOTHING).await;
    assert_eq!(status, StatusCode::NO_CONTENT, "{answer}");
    let a = proxy.get("/proxies/a").await;
    assert_eq!((&a["enabled"], &a["listen"]), (&json!(true), &listens[0]));
    let address = listens[0].as_str().expect("an address");
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("a connection");
    assert_eq!(round_trip(&mut stream, b"hello").await.expect("an echo"), b"hello");
    drop(listener);
}

#[tokio::test]
async fn a_deleted_proxy_leaves_no_metrics_behind_and_takes_none_of_anothers() {
    let proxy = Proxy::start().await;
    let upstream = echo().await;
    for name in ["gone", "kept"] {
        let mut stream = proxy.connect(name, upstream, json!([{ "type": "latency" }])).await;
        assert_eq!(round_trip(&mut stream, b"hello").await.expect("an echo"), b"hello");
    }
    let series = async |name: &str| {
        let text =
            proxy.client().get(proxy.url("/metrics")).send().await.expect("an answer").text().await.expect("text");
        text.lines().filter(|line| line.contains(&format!("proxy=\"{name}\""))).count()
    };
    let before = series("kept").await;
    assert!(before > 0 && series("gone").await == before, "{before}");
    proxy.ask(Method::DELETE, "/proxies/gone", &NOTHING).await;
    assert_eq!((series("gone").await, series("kept").await), (0, before));
    let mut stream = proxy.connect("gone", upstream, json!([])).await;
    assert_eq!(round_trip(&mut stream, b"hello").await.expect("an echo"), b"hello");
    assert_eq!(proxy.metric("fault_proxy_connections_total{proxy=\"gone\"}").await, 1.0, "its own, from the start");
}

#[tokio::test]
async fn a_proxy_that_is_full_lets_others_wait_and_the_other_proxies_work() {
    let proxy = Proxy::start_with(&[("PROXIES_MAX_CONNECTIONS_PER_PROXY", "1")]).await;
    let upstream = echo().await;
    let mut first = proxy.connect("full", upstream, json!([])).await;
    assert_eq!(round_trip(&mut first, b"hello").await.expect("an echo"), b"hello");
    let listen = proxy.get("/proxies/full").await["listen"].as_str().expect("an address").to_owned();
    let mut second = tokio::net::TcpStream::connect(listen).await.expect("the kernel takes it");
    tokio::io::AsyncWriteExt::write_all(&mut second, b"later").await.expect("the kernel takes it");
    let mut other = proxy.connect("other", upstream, json!([])).await;
    assert_eq!(round_trip(&mut other, b"hello").await.expect("an echo"), b"hello");
    assert_eq!(proxy.metric("fault_proxy_connections_total{proxy=\"full\"}").await, 1.0);
    drop(first);
    let mut answer = [0; 5];
    tokio::io::AsyncReadExt::read_exact(&mut second, &mut answer).await.expect("its turn");
    assert_eq!(&answer, b"later");
}

#[tokio::test]
async fn a_client_is_closed_when_its_upstream_does_not_accept_in_time() {
    let proxy = Proxy::start_with(&[("PROXIES_CONNECT_TIMEOUT_MS", "100")]).await;
    // Nobody takes what waits in its backlog, and that has room for one.
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let full = socket.listen(1).expect("a listener");
    let address = full.local_addr().expect("an address");
    let filling = (0..8).map(|_| tokio::spawn(tokio::net::TcpStream::connect(address))).collect::<Vec<_>>();
    let mut stream = proxy.connect("slow-upstream", address, json!([])).await;
    let mut rest = Vec::new();
    let closed = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest);
    // Without a limit of its own it would take the kernel two minutes.
    let closed = tokio::time::timeout(std::time::Duration::from_secs(60), closed).await;
    assert_eq!(closed.expect("in time").expect("closed in order"), 0);
    assert_eq!(proxy.metric("fault_proxy_unreachable_upstream_total{proxy=\"slow-upstream\"}").await, 1.0);
    filling.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_port_that_is_taken_or_not_loopback_is_refused_and_nothing_is_made() {
    let proxy = Proxy::start().await;
    let (listener, taken) = server().await;
    for (listen, status) in [(taken.to_string(), 500), ("0.0.0.0:0".into(), 400), ("nowhere".into(), 400)] {
        let new = json!({ "name": "db", "listen": listen, "upstream": "127.0.0.1:9" });
        let (got, answer) = proxy.ask(Method::POST, "/proxies", &new).await;
        assert_eq!(got.as_u16(), status, "{answer}");
    }
    assert_eq!(proxy.get("/proxies").await, json!({}));
    drop(listener);

    let open = Proxy::start_with(&[("PROXIES_ALLOW_REMOTE", "true")]).await;
    let (status, made) =
        open.ask(Method::POST, "/proxies", &json!({ "name": "db", "listen": ":0", "upstream": "127.0.0.1:9" })).await;
    assert_eq!(status, StatusCode::CREATED);
    assert!(made["listen"].as_str().is_some_and(|listen| listen.starts_with("0.0.0.0:")), "{made}");
}

#[tokio::test]
async fn browsers_are_kept_out_and_the_version_is_toxiproxys() {
    let proxy = Proxy::start().await;
    let request = proxy.client().get(proxy.url("/proxies")).header("user-agent", "Mozilla/5.0 (X11)");
    assert_eq!(request.send().await.expect("an answer").status(), StatusCode::FORBIDDEN);
    let version = proxy.get("/version").await;
    assert!(version["version"].as_str().is_some_and(|version| version.starts_with("2.")), "{version}");
}

#[tokio::test]
async fn a_file_of_proxies_is_there_when_the_service_is_ready() {
    let file = std::env::temp_dir().join(format!("fault-proxy-{}.json", std::process::id()));
    let proxies = json!([{ "name": "db", "upstream": "127.0.0.1:9", "toxics": [{ "type": "latency" }] }]);
    std::fs::write(&file, proxies.to_string()).expect("a file");
    let proxy = Proxy::start_with(&[("PROXIES_FILE", file.to_str().expect("UTF-8"))]).await;
    assert_eq!(proxy.get("/proxies/db").await["toxics"][0]["name"], "latency_downstream");
    std::fs::remove_file(&file).expect("its removal");
}
