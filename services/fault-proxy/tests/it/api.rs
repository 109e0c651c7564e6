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
    drop(listener);
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
