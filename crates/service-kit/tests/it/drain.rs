use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use service_kit::health::Importance;
use service_kit::{BoxError, Outcome, start};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::support::{Config, SERVICE, SHORT, Shared, build, problem, ready, subject};

const PATIENT: &[(&str, &str)] = &[("SHUTDOWN_DELAY_MS", "60000"), ("SHUTDOWN_DEADLINE_MS", "120000")];

#[tokio::test]
async fn readiness_goes_first_while_requests_are_still_answered() {
    let shared = Shared::default();
    let service = subject(shared.clone(), PATIENT).await;
    let url = service.url();
    let client = reqwest::Client::new();
    let in_flight = tokio::spawn(client.get(format!("{url}/wait")).send());
    shared.entered(1).await;

    service.begin_stop();
    let draining = loop {
        let response = client.get(format!("{url}/readyz")).send().await.unwrap();
        if response.status() == 503 {
            break response;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(draining.headers()["connection"], "close");
    let body = problem(draining).await;
    assert_eq!(body["state"], "draining");
    assert_eq!(client.get(format!("{url}/livez")).send().await.unwrap().status(), 200);
    assert_eq!(client.get(format!("{url}/items")).send().await.unwrap().status(), 200);

    shared.release.cancel();
    let answered = in_flight.await.unwrap().unwrap();
    assert_eq!(answered.status(), 200);
    assert_eq!(answered.headers()["connection"], "close");
}

#[tokio::test]
async fn a_request_in_flight_is_answered_after_the_port_is_closed() {
    let shared = Shared::default();
    let overrides = [SHORT, &[("HTTP_REQUEST_TIMEOUT_MS", "15000")]].concat();
    let service = subject(shared.clone(), &overrides).await;
    let addr = service.addr;
    let in_flight = tokio::spawn(reqwest::get(format!("{}/wait", service.url())));
    shared.entered(1).await;

    service.begin_stop();
    while TcpStream::connect(addr).await.is_ok() {
        tokio::task::yield_now().await;
    }
    shared.release.cancel();
    assert_eq!(in_flight.await.unwrap().unwrap().text().await.unwrap(), "released");
    assert_eq!(service.wait().await, Outcome::Stopped);
}

#[tokio::test]
async fn idle_connections_do_not_hold_up_the_stop() {
    let overrides = [SHORT, &[("HTTP_HEADER_TIMEOUT_MS", "60000")]].concat();
    let service = subject(Shared::default(), &overrides).await;
    let mut used = TcpStream::connect(service.addr).await.unwrap();
    used.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(used.read(&mut [0; 512]).await.unwrap() > 0);
    let _unused = TcpStream::connect(service.addr).await.unwrap();

    let stopped = tokio::time::timeout(Duration::from_secs(10), service.stop()).await;
    assert_eq!(stopped.expect("well before any timeout"), Outcome::Stopped);
}

#[tokio::test]
async fn what_is_not_drained_by_the_deadline_is_cut_off() {
    let shared = Shared::default();
    let overrides = [("SHUTDOWN_DELAY_MS", "0"), ("SHUTDOWN_DEADLINE_MS", "1100")];
    let service = subject(shared.clone(), &overrides).await;
    let in_flight = tokio::spawn(reqwest::get(format!("{}/wait", service.url())));
    shared.entered(1).await;
    assert_eq!(service.stop().await, Outcome::Failed);
    assert!(in_flight.await.unwrap().is_err(), "the connection is closed without an answer");
}

#[tokio::test]
async fn a_failed_task_stops_the_service() {
    let (fail, failure) = oneshot::channel::<()>();
    let service = start(SERVICE, SHORT, async |_: Config, mut app| {
        app.task("doomed", async move {
            failure.await?;
            Err::<(), BoxError>("no more".into())
        });
        Ok(app)
    })
    .await
    .unwrap();
    ready(&service.url()).await;
    fail.send(()).unwrap();
    assert_eq!(service.wait().await, Outcome::Failed);
}

#[tokio::test]
async fn a_panicking_task_stops_the_service() {
    let service = start(SERVICE, SHORT, async |_: Config, mut app| {
        app.task("doomed", async { panic!("no more") });
        Ok(app)
    })
    .await
    .unwrap();
    assert_eq!(service.wait().await, Outcome::Failed);
}

#[tokio::test]
async fn tasks_are_drained_and_those_that_requests_feed_end_last() {
    let drained = Arc::new(AtomicBool::new(false));
    let seen = drained.clone();
    let service = start(SERVICE, SHORT, async |_: Config, app| {
        let (sender, mut jobs) = tokio::sync::mpsc::channel::<()>(1);
        let mut app = build(Shared::default(), app).await?;
        let router = axum::Router::new()
            .route("/job", axum::routing::post(async move || sender.send(()).await.map_err(|_| "the batcher is gone")));
        app.routes(router.into());
        app.task("batcher", async move {
            while jobs.recv().await.is_some() {}
            seen.store(true, Ordering::SeqCst);
            Ok(())
        });
        let shutdown = app.shutdown();
        app.task("periodic", async move {
            shutdown.cancelled().await;
            Ok(())
        });
        Ok(app)
    })
    .await
    .unwrap();
    ready(&service.url()).await;
    let posted = reqwest::Client::new().post(format!("{}/job", service.url())).send().await.unwrap();
    assert_eq!(posted.status(), 200);
    assert_eq!(service.stop().await, Outcome::Stopped);
    assert!(drained.load(Ordering::SeqCst));
}

#[tokio::test]
async fn routes_are_refused_until_the_service_has_started() {
    let (go, started) = oneshot::channel::<()>();
    let service = start(SERVICE, SHORT, async |_: Config, app| {
        let mut app = build(Shared::default(), app).await?;
        app.on_start(async move { Ok(started.await?) });
        Ok(app)
    })
    .await
    .unwrap();
    let get = async |path: &str| reqwest::get(format!("{}{path}", service.url())).await.unwrap();
    assert_eq!(get("/livez").await.status(), 200);
    assert_eq!(problem(get("/readyz").await).await["state"], "starting");
    let refused = get("/items").await;
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers()["retry-after"], "1");
    go.send(()).unwrap();
    ready(&service.url()).await;
    assert_eq!(get("/items").await.status(), 200);
    service.stop().await;
}

#[tokio::test]
async fn a_failed_start_ends_the_service() {
    let service = start(SERVICE, SHORT, async |_: Config, mut app| {
        app.on_start(async { Err("no definitions".into()) });
        Ok(app)
    })
    .await
    .unwrap();
    assert_eq!(service.wait().await, Outcome::Failed);
}

#[tokio::test]
async fn only_a_required_dependency_makes_a_service_unready() {
    let up = Arc::new(AtomicBool::new(false));
    let state = up.clone();
    let service = start(SERVICE, SHORT, async |_: Config, mut app| {
        app.health_check("mail", Importance::Optional, async || Err("no server".to_owned()));
        app.health_check("vault", Importance::Required, move || {
            std::future::ready(if state.load(Ordering::SeqCst) {
                Ok("open".to_owned())
            } else {
                Err("sealed".to_owned())
            })
        });
        Ok(app)
    })
    .await
    .unwrap();
    let verbose = async || reqwest::get(format!("{}/readyz?verbose", service.url())).await.unwrap();
    let unready = loop {
        let body = problem(verbose().await).await;
        if body["state"] != "starting" {
            break body;
        }
    };
    assert_eq!(unready["state"], "unready");
    assert_eq!(unready["detail"], "vault: sealed");

    up.store(true, Ordering::SeqCst);
    ready(&service.url()).await;
    let body: Value = verbose().await.json().await.unwrap();
    let states: Vec<_> =
        body["dependencies"].as_array().unwrap().iter().map(|d| d["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["down", "up"]);
    service.stop().await;
}

#[tokio::test]
async fn a_database_that_is_down_makes_a_service_unready_and_its_routes_503() {
    let overrides =
        [SHORT, &[("DATABASE_URL", "postgres://nobody@127.0.0.1:1/nothing"), ("DATABASE_ACQUIRE_TIMEOUT_MS", "50")]]
            .concat();
    let service = start(SERVICE, &overrides, async |_: Config, mut app| {
        let pool = app.database()?;
        let router = axum::Router::new().route(
            "/rows",
            axum::routing::get(async move || -> Result<_, service_kit::Problem> {
                sqlx::query("SELECT 1").execute(&pool).await?;
                Ok("rows")
            }),
        );
        app.routes(router.into());
        Ok(app)
    })
    .await
    .unwrap();
    let get = async |path: &str| reqwest::get(format!("{}{path}", service.url())).await.unwrap();
    let body = problem(get("/readyz?verbose").await).await;
    assert_eq!(body["dependencies"][0]["name"], "database");
    assert_eq!(body["dependencies"][0]["state"], "down");
    let response = get("/rows").await;
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "1");
    service.stop().await;
}
