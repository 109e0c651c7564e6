//! What the tests share: requests, and a link to the database that can be cut.

use std::net::SocketAddr;

use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde_json::Value;
use sqlx::PgPool;
use sqlx::postgres::PgConnection;
use testkit::{Env, Process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use uuid::Uuid;

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) async fn of(response: reqwest::Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.expect("a body");
        let body = serde_json::from_str(&text).unwrap_or_else(|_| panic!("no JSON: {text}"));
        Self { status, headers, body }
    }

    /// The id of the order that was accepted.
    pub(crate) fn order(&self) -> Uuid {
        assert_eq!(self.status, 202, "{}", self.body);
        self.body["orderId"].as_str().and_then(|id| id.parse().ok()).expect("an order id")
    }

    /// The last part of the problem's type.
    pub(crate) fn problem(&self) -> &str {
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(self.body["status"], self.status);
        self.body["type"].as_str().and_then(|kind| kind.rsplit('/').next()).expect("a problem type")
    }

    /// The pointers of all invalid fields.
    pub(crate) fn pointers(&self) -> Vec<&str> {
        let errors = self.body["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
        errors.iter().filter_map(|error| error["pointer"].as_str()).collect()
    }

    pub(crate) fn says_when_to_retry(&self) -> bool {
        let seconds = self.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse::<u32>().ok());
        seconds.is_some_and(|seconds| seconds >= 1)
    }
}

pub(crate) async fn get(service: &Process, path: &str) -> Answer {
    Answer::of(reqwest::get(format!("{}{path}", service.url())).await.expect("an answer")).await
}

pub(crate) async fn post(service: &Process, body: &Value) -> Answer {
    Answer::of(request(service, None, body).send().await.expect("an answer")).await
}

pub(crate) async fn post_with_key(service: &Process, key: &str, body: &Value) -> Answer {
    Answer::of(request(service, Some(key), body).send().await.expect("an answer")).await
}

pub(crate) fn request(service: &Process, key: Option<&str>, body: &Value) -> reqwest::RequestBuilder {
    let request = reqwest::Client::new().post(format!("{}/api/orders", service.url())).json(body);
    match key {
        Some(key) => request.header("Idempotency-Key", key),
        None => request,
    }
}

pub(crate) async fn count(pool: &PgPool, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(pool).await.expect("a count")
}

/// Orders, lines and outbox rows: what a refused request must leave alone.
pub(crate) async fn rows(pool: &PgPool) -> (i64, i64, i64) {
    (
        count(pool, "SELECT count(*) FROM orders").await,
        count(pool, "SELECT count(*) FROM order_items").await,
        count(pool, "SELECT count(*) FROM order_outbox").await,
    )
}

/// Settings with which an insert may be held back for minutes, however slow the machine.
pub(crate) const PATIENT: [(&str, &str); 4] = [
    ("DATABASE_LOCK_TIMEOUT_MS", "300000"),
    ("DATABASE_STATEMENT_TIMEOUT_MS", "300000"),
    ("WRITER_TIMEOUT_MS", "300000"),
    ("HTTP_REQUEST_TIMEOUT_MS", "310000"),
];

/// Holds back every insert of orders until it is committed or dropped.
pub(crate) async fn hold_inserts(pool: &PgPool) -> sqlx::Transaction<'static, sqlx::Postgres> {
    let mut lock = pool.begin().await.expect("a transaction");
    let connection: &mut PgConnection = &mut lock;
    sqlx::query("LOCK TABLE orders IN SHARE ROW EXCLUSIVE MODE").execute(connection).await.expect("the lock");
    lock
}

/// Statements that wait for a lock on `orders`.
pub(crate) async fn waiting_inserts(pool: &PgPool) -> i64 {
    count(
        pool,
        "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
          WHERE datname = current_database() AND NOT granted AND relation = 'orders'::regclass",
    )
    .await
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traffic {
    Flows,
    /// Statements arrive, answers do not: whoever sent them cannot know.
    LosesAnswers,
    /// Connections are ended, and new ones too.
    Cut,
}

/// A link to the environment's database that a test can cut.
pub(crate) struct Link {
    address: SocketAddr,
    traffic: watch::Sender<Traffic>,
}

impl Link {
    pub(crate) async fn to_database(env: &Env) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let (traffic, watched) = watch::channel(Traffic::Flows);
        let server = format!("127.0.0.1:{}", env.servers().postgres);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, server.clone(), watched.clone()));
            }
        });
        Self { address, traffic }
    }

    /// URL of the orders database over this link.
    pub(crate) fn url(&self, env: &Env) -> String {
        let direct = env.database_url("orders");
        direct.replace(&format!("127.0.0.1:{}", env.servers().postgres), &self.address.to_string())
    }

    pub(crate) fn set(&self, traffic: Traffic) {
        self.traffic.send_replace(traffic);
    }
}

async fn carry(mut client: TcpStream, server: String, mut traffic: watch::Receiver<Traffic>) {
    if *traffic.borrow_and_update() == Traffic::Cut {
        return;
    }
    let Ok(mut server) = TcpStream::connect(server).await else { return };
    let (mut from_client, mut from_server) = ([0; 8192], [0; 8192]);
    loop {
        let done = tokio::select! {
            // Of a cut that was mended at once only the mending is seen.
            changed = traffic.changed() => changed.is_err() || *traffic.borrow() != Traffic::LosesAnswers,
            read = client.read(&mut from_client) => match read {
                Ok(length @ 1..) => server.write_all(&from_client[..length]).await.is_err(),
                _ => true,
            },
            read = server.read(&mut from_server) => match read {
                Ok(length @ 1..) if *traffic.borrow() == Traffic::Flows => {
                    client.write_all(&from_server[..length]).await.is_err()
                }
                Ok(1..) => false,
                _ => true,
            },
        };
        if done {
            return;
        }
    }
}
