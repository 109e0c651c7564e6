use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use service_kit::{
    ApiJson, ApiPath, ApiQuery, App, BoxError, CancellationToken, Common, OpenApiRouter, Page, Problem, Running,
    Service, ServiceConfig, StartError, paging, routes, start, telemetry,
};
use tokio::sync::Semaphore;

pub const SERVICE: Service = Service { name: "subject", defaults: "" };

/// The limits of the subject: short, so that tests reach them.
pub const SHORT: &[(&str, &str)] = &[
    ("HTTP_HEADER_TIMEOUT_MS", "200"),
    ("HTTP_REQUEST_TIMEOUT_MS", "300"),
    ("HTTP_MAX_IN_FLIGHT", "2"),
    ("SHUTDOWN_DELAY_MS", "0"),
];

#[derive(Serialize, Deserialize)]
pub struct Config {
    #[serde(flatten)]
    pub common: Common,
}

impl ServiceConfig for Config {
    fn common(&self) -> &Common {
        &self.common
    }

    fn validate(&self, _errors: &mut Vec<String>) {}
}

/// What a test shares with the routes.
#[derive(Clone, Default)]
pub struct Shared {
    /// A permit is added whenever `/wait` has begun.
    pub entered: Arc<Entered>,
    /// Lets every `/wait` go.
    pub release: CancellationToken,
}

pub struct Entered(pub Semaphore);

impl Default for Entered {
    fn default() -> Self {
        Self(Semaphore::new(0))
    }
}

impl Shared {
    /// Returns when `count` more requests have reached `/wait`.
    pub async fn entered(&self, count: u32) {
        self.entered.0.acquire_many(count).await.unwrap().forget();
    }
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[utoipa::path(post, path = "/named")]
async fn named(ApiJson(body): ApiJson<Named>) -> Json<Value> {
    Json(json!({ "name": body.name }))
}

#[derive(Deserialize)]
struct ListQuery {
    limit: Option<u32>,
}

#[utoipa::path(get, path = "/items")]
async fn items(ApiQuery(query): ApiQuery<ListQuery>) -> Result<Json<Value>, Problem> {
    let limit = paging::limit(query.limit)?;
    let page = Page::from_rows((0..=limit).collect(), limit, |n| *n);
    Ok(Json(json!(page)))
}

#[utoipa::path(get, path = "/items/{number}")]
async fn item(ApiPath(number): ApiPath<u32>) -> Json<u32> {
    Json(number)
}

#[utoipa::path(get, path = "/trace")]
async fn trace() -> Json<Vec<Option<String>>> {
    Json(vec![telemetry::current_traceparent(), telemetry::current_traceparent()])
}

#[utoipa::path(get, path = "/panic")]
async fn panic() -> Json<()> {
    panic!("a secret")
}

#[utoipa::path(get, path = "/wait")]
async fn wait(State(shared): State<Shared>) -> &'static str {
    shared.entered.0.add_permits(1);
    shared.release.cancelled().await;
    "released"
}

pub async fn build(shared: Shared, mut app: App) -> Result<App, BoxError> {
    let router = OpenApiRouter::new()
        .routes(routes!(named))
        .routes(routes!(items))
        .routes(routes!(item))
        .routes(routes!(trace))
        .routes(routes!(panic))
        .routes(routes!(wait))
        .with_state(shared);
    app.routes(router);
    Ok(app)
}

/// Starts the subject and waits until it is ready.
pub async fn subject(shared: Shared, overrides: &[(&str, &str)]) -> Running {
    let running = start(SERVICE, overrides, async |_: Config, app| build(shared, app).await).await.unwrap();
    ready(&running.url()).await;
    running
}

/// Starts the subject, if it can be started.
pub async fn try_subject(overrides: &[(&str, &str)]) -> Result<Running, StartError> {
    start(SERVICE, overrides, async |_: Config, app| build(Shared::default(), app).await).await
}

/// Waits until `/readyz` says 200.
pub async fn ready(url: &str) {
    let url = format!("{url}/readyz");
    let is_ready = async || reqwest::get(&url).await.unwrap().status() == 200;
    testkit::wait_until("the service to be ready", Duration::from_secs(10), is_ready).await;
}

/// The body of a problem, checked for its media type and its status.
pub async fn problem(response: reqwest::Response) -> Value {
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["status"], status);
    body
}

/// The example service, which cargo builds along with the tests.
pub fn greeter() -> Command {
    let this = std::env::current_exe().unwrap();
    let path: PathBuf = this.ancestors().nth(2).unwrap().join("examples/greeter");
    assert!(path.exists(), "{} is missing: cargo build -p service-kit --example greeter", path.display());
    let mut command = Command::new(path);
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The address in a port file, once it is there.
pub async fn wait_for_address(file: &Path) -> String {
    let read = async || std::fs::read_to_string(file).ok();
    let address = testkit::wait_for(Duration::from_secs(20), read).await.expect("a port file");
    address.trim().to_owned()
}
