//! One test's own corner of the shared servers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use messaging::{CancellationToken, KafkaConfig, Outgoing, Producer, Record, admin};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use stack::Repository;
use stack::provision::{Names, topics};
use tempfile::TempDir;
use tokio::sync::OnceCell;
use uuid::Uuid;

use crate::cleanup::{self, Owned};
use crate::process::Process;
use crate::servers::Servers;
use crate::wait::wait_for;
use crate::{ClusterBuilder, connector, databases, workspace};

/// The services, in the order in which they are started, each with its database.
pub const SERVICES: &[(&str, &str)] = &[
    ("orchestrator", "orchestrator"),
    ("payment-svc", "payment"),
    ("inventory-svc", "inventory"),
    ("shipping-svc", "shipping"),
    ("notification-svc", "notification"),
    ("dlq-admin", "dlq_admin"),
    ("order-api", "orders"),
];

/// Databases, topics and consumer groups of its own on the shared servers, under a prefix that no other test
/// has. All of it is removed when the value is dropped.
pub struct Env {
    prefix: String,
    servers: Servers,
    dir: TempDir,
    producer: OnceCell<Producer>,
    owned: Mutex<Owned>,
    started: AtomicU32,
}

impl Env {
    /// Makes the topics and the database of `label`, which is the name of a service or of its database;
    /// any other label makes the databases of all services.
    ///
    /// # Panics
    /// When the servers are not there; the message tells how to run the test.
    pub async fn new(label: &str) -> Self {
        let servers = Servers::from_environment().unwrap_or_else(|error| panic!("{error:#}"));
        Self::on(servers, label).await
    }

    /// The same on other servers than those that all tests share.
    ///
    /// # Panics
    /// When they do not answer.
    pub async fn on(servers: Servers, label: &str) -> Self {
        let env = Self::bare_on(servers, label);
        let known = SERVICES.iter().find(|(service, database)| *service == label || *database == label);
        let wanted = known.map_or(SERVICES, std::slice::from_ref);
        let names: BTreeSet<&str> = wanted.iter().map(|(_, database)| *database).collect();
        for name in names {
            env.create_database(name).await;
        }
        let repository = Repository::find().expect("the repository");
        let declared = topics::declared(&repository.topics(), &env.prefix).unwrap_or_else(|error| panic!("{error}"));
        env.create(declared).await;
        env
    }

    /// Neither databases nor topics: a test makes what it needs.
    ///
    /// # Panics
    /// When `SYMPHONY_TEST_SERVERS` names no servers; the message tells how to run the test.
    pub fn bare(label: &str) -> Self {
        Self::bare_on(Servers::from_environment().unwrap_or_else(|error| panic!("{error:#}")), label)
    }

    fn bare_on(servers: Servers, label: &str) -> Self {
        let id = Uuid::new_v4().simple().to_string();
        let dir = tempfile::Builder::new().prefix(&format!("symphony-{label}-")).tempdir();
        Self {
            prefix: format!("t{}_", &id[..8]),
            servers,
            dir: dir.expect("a temporary folder"),
            producer: OnceCell::new(),
            owned: Mutex::default(),
            started: AtomicU32::new(0),
        }
    }

    /// Put before the name of each database, topic and consumer group.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The servers this environment is on.
    pub fn servers(&self) -> &Servers {
        &self.servers
    }

    /// A folder for the test's files; removed with the environment.
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// How this test's services reach Kafka.
    pub fn kafka(&self) -> KafkaConfig {
        KafkaConfig {
            bootstrap_servers: self.servers.endpoints().kafka(),
            topic_prefix: self.prefix.clone(),
            ..KafkaConfig::default()
        }
    }

    /// Base URL of Kafka Connect's REST interface, without a slash at the end.
    pub fn connect_url(&self) -> String {
        self.servers.endpoints().connect()
    }

    /// URL of the database `name` for its service's role.
    pub fn database_url(&self, name: &str) -> String {
        self.servers.endpoints().database(name, &format!("{}{name}", self.prefix))
    }

    /// The same by another address, such as that of a proxy before PostgreSQL.
    pub fn database_url_at(&self, name: &str, address: SocketAddr) -> String {
        format!("postgres://{name}@{address}/{}{name}", self.prefix)
    }

    /// Waits until the connector's task runs, and restarts it if it has failed, as the supervisor of a stack does.
    ///
    /// # Panics
    /// When it does not run in time.
    pub async fn heal_connector(&self) {
        let names = Names::prefixed(&self.prefix);
        let running = connector::until_running(&self.servers, &names).await;
        running.unwrap_or_else(|error| panic!("connector {}: {error:#}", names.connector));
    }

    /// A pool on the database `name` as the superuser.
    pub fn pool(&self, name: &str) -> PgPool {
        self.connect("postgres", name)
    }

    /// A pool on the database `name` with no more rights than its service has.
    pub fn role_pool(&self, name: &str) -> PgPool {
        self.connect(name, name)
    }

    fn connect(&self, role: &str, name: &str) -> PgPool {
        let url = self.servers.endpoints().database(role, &format!("{}{name}", self.prefix));
        let options = PgPoolOptions::new().max_connections(4).acquire_timeout(Duration::from_secs(30));
        options.connect_lazy(&url).expect("a well-formed database URL")
    }

    /// Makes the database `name` as its migrations leave it, unless it is there.
    ///
    /// # Panics
    /// When PostgreSQL cannot be reached or a migration fails.
    pub async fn create_database(&self, name: &str) {
        if self.lock().databases.contains(name) {
            return;
        }
        databases::create(&self.servers, &self.prefix, name)
            .await
            .unwrap_or_else(|error| panic!("database {name}: {error:#}"));
        self.lock().databases.insert(name.to_owned());
    }

    /// Makes topics (named without the prefix) of `partitions` partitions beside those of the topic file.
    ///
    /// # Panics
    /// When Kafka refuses.
    pub async fn create_topics(&self, names: &[&str], partitions: i32) {
        let spec = |name: &&str| admin::TopicSpec {
            name: format!("{}{name}", self.prefix),
            partitions,
            replication: 1,
            config: BTreeMap::new(),
        };
        self.create(names.iter().map(spec).collect()).await;
    }

    async fn create(&self, topics: Vec<admin::TopicSpec>) {
        admin::create_topics(&self.servers.endpoints().kafka(), &topics).await.expect("creating topics");
        self.lock().topics.extend(topics.into_iter().map(|topic| topic.name));
    }

    /// Applies the connector of this environment's orders database, with publication and slot of its own, and
    /// waits until its task runs. Does nothing the second time.
    ///
    /// # Panics
    /// When it does not run in time; the message has Connect's reason.
    pub async fn start_connector(&self) {
        let names = Names::prefixed(&self.prefix);
        if self.lock().connector.replace(names.clone()).is_none() {
            let started = connector::start(&self.servers, &names).await;
            started.unwrap_or_else(|error| panic!("connector {}: {error:#}", names.connector));
        }
    }

    /// Starts the service `name` (the program of the running test's build) with `overrides` on top of the
    /// settings of this environment, and waits until it is ready.
    ///
    /// # Panics
    /// When it is not ready in time; the message ends with its log.
    pub async fn start_service(&self, name: &str, overrides: &[(&str, &str)]) -> Process {
        let process = self.prepare_service(name, overrides).await;
        process.start().await;
        process
    }

    /// The service `name` without starting it, its database made.
    pub async fn prepare_service(&self, name: &str, overrides: &[(&str, &str)]) -> Process {
        let database = SERVICES.iter().find_map(|(service, database)| (*service == name).then_some(*database));
        let mut environment = self.settings();
        if let Some(database) = database {
            self.create_database(database).await;
            let port = self.servers.links.postgres.get(name).copied().unwrap_or(self.servers.postgres);
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            environment.push(("DATABASE_URL".into(), self.database_url_at(database, address)));
        }
        environment.extend(overrides.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        Process::prepare(self.dir(), &format!("{name}-{number}"), workspace::program(name), environment)
    }

    /// What every service of this environment is told.
    fn settings(&self) -> Vec<(String, String)> {
        let setting = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let kafka = self.servers.links.services_to_kafka.map_or(self.servers.kafka, |listener| listener.advertised);
        vec![
            setting("HTTP_HOST", "127.0.0.1"),
            setting("KAFKA_BOOTSTRAP_SERVERS", &format!("127.0.0.1:{kafka}")),
            setting("KAFKA_TOPIC_PREFIX", &self.prefix),
            setting("LOG_FORMAT", "pretty"),
            setting("NO_COLOR", "1"),
            setting("RUST_BACKTRACE", "1"),
            setting("SAGAS_DIR", &workspace::root().join("sagas").display().to_string()),
        ]
    }

    /// All services and the connector, to be adjusted before they start.
    pub fn cluster(&self) -> ClusterBuilder<'_> {
        ClusterBuilder::new(self)
    }

    /// Publishes `message` and waits for the acknowledgement.
    ///
    /// # Panics
    /// When no producer can be made.
    pub async fn send(&self, message: Outgoing) {
        self.send_all(&[message]).await;
    }

    /// Publishes `messages` and waits for every acknowledgement.
    ///
    /// # Panics
    /// When no producer can be made.
    pub async fn send_all(&self, messages: &[Outgoing]) {
        let producer = async || Producer::new(&self.kafka(), "testkit").expect("a producer");
        let producer = self.producer.get_or_init(producer).await;
        producer.publish(messages, &CancellationToken::new()).await.expect("nobody cancels this");
    }

    /// All that is on `topic` (named without the prefix) now, from its start; so are the records' topics.
    ///
    /// # Panics
    /// When Kafka cannot be reached or the topic is missing.
    pub async fn read_topic(&self, topic: &str) -> Vec<Record> {
        let full = format!("{}{topic}", self.prefix);
        let broker = self.servers.endpoints().kafka();
        // A topic that was just made has no leader for a moment.
        let soon = Duration::from_secs(30);
        let records = wait_for(soon, async || admin::read_topic(&broker, &full).await.ok()).await;
        let records = match records {
            Some(records) => Ok(records),
            None => admin::read_topic(&broker, &full).await,
        };
        let mut records = records.unwrap_or_else(|error| panic!("reading {topic}: {error}"));
        for record in &mut records {
            record.topic = topic.to_owned();
        }
        records
    }

    /// The first message on `topic` for which `wanted` holds.
    ///
    /// # Panics
    /// When none comes within three minutes.
    pub async fn await_message(&self, topic: &str, mut wanted: impl FnMut(&Record) -> bool) -> Record {
        let limit = Duration::from_secs(180);
        let found = wait_for(limit, async || self.read_topic(topic).await.into_iter().find(|record| wanted(record)));
        found.await.unwrap_or_else(|| panic!("no such message on {topic} within {limit:?}"))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Owned> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Env {
    fn drop(&mut self) {
        let owned = std::mem::take(&mut *self.lock());
        cleanup::remove(&self.servers, &self.prefix, owned);
    }
}
