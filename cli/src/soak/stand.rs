//! The stack of a soak: everything that `symphony up` runs, on free ports, in a folder of its own, with the fault proxy
//! between its parts and PostgreSQL on a disk of its own.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use reqwest::Client as Http;
use sqlx::postgres::PgConnection;
use sqlx::{ConnectOptions as _, Connection as _};
use stack::layout::Repository;
use stack::links::{CONNECT, Links, Listener};
use stack::ports::{Ports, Reservation};
use stack::process::ProcessId;
use stack::servers::Endpoints;
use stack::supervisor::control::{Client, Request};
use stack::supervisor::state::{ComponentState, Phase, State};
use stack::supervisor::{self, Lock, Report, SERVICES};
use stack::{DataDir, fetch, wipe};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::disk::{self, Disk};
use super::kinds::Link;
use super::proxy::Proxy;
use super::shim::Shim;

/// A running stack.
pub(super) struct Stand {
    folder: PathBuf,
    data: DataDir,
    /// Where the servers are, with the links to them.
    pub(super) endpoints: Endpoints,
    /// Between the parts.
    pub(super) proxy: Proxy,
    /// For questions to services.
    pub(super) http: Http,
    shim: Result<Shim, &'static str>,
    disk: Result<Disk, &'static str>,
    supervisor: JoinHandle<Result<(), stack::Error>>,
    _listeners: [Reservation; 2],
}

impl Stand {
    /// Starts everything and returns when all is ready.
    pub(super) async fn start() -> anyhow::Result<Self> {
        disk::unmount_leftovers();
        let folder = tempfile::Builder::new().prefix("symphony-soak-").tempdir()?.keep();
        // PostgreSQL may run as another user, who has to get in.
        std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        eprintln!("its files are in {}", folder.display());
        let data = DataDir::at(&folder.join("stack"))?;
        // Before there is a disk, which others would take for a leftover.
        let lock = Lock::take(&data)?.ok_or_else(|| anyhow!("{} is taken", data.root().display()))?;
        let disk = Disk::mount(&folder.join("disk")).inspect_err(|why| eprintln!("no disk for PostgreSQL: {why}"));
        if let Ok(disk) = &disk {
            std::fs::write(data.postgres_location(), disk.cluster().as_os_str().as_encoded_bytes())?;
        }
        let shim = Shim::build(&folder).map_err(|error| {
            eprintln!("no clock can be stepped: {error:#}");
            "it needs a C compiler and glibc"
        });

        let programs = std::env::current_exe().context("finding this program")?;
        let programs = programs.parent().map(Path::to_path_buf).unwrap_or_default();
        let proxy = Proxy::start(&programs, &folder).await?;
        // Now, as nobody holds the ports while the supervisor does it.
        let announce = |cache: &Path| eprintln!("fetching the servers into {}", cache.display());
        Box::pin(fetch::ensure(announce)).await?;
        let (ports, links, reserved) = links(&proxy).await?;
        let mut environment = vec![("CHAOS_ENABLED".to_owned(), "true".to_owned())];
        environment.extend(shim.iter().flat_map(Shim::environment));
        let options = supervisor::Options {
            ports,
            links: links.clone(),
            environment,
            ..supervisor::Options::new(Repository::find()?, programs)
        };
        let log = data.log("supervisor");
        let report = Report::new(move |line| append(&log, line));
        let (sender, ready) = oneshot::channel();
        let ready_state = move |state: &State| drop(sender.send(state.clone()));
        // Given back only for the supervisor to reserve them.
        drop(reserved.servers);
        let mut supervisor = tokio::spawn(supervisor::run(lock, options, report, ready_state));
        tokio::select! {
            state = ready => state.context("the supervisor ended")?,
            ended = &mut supervisor => return Err(match ended? {
                Err(error) => anyhow!(error),
                Ok(()) => anyhow!("the supervisor ended"),
            }),
        };
        let endpoints = Endpoints { ports, links };
        let http = Http::builder().connect_timeout(Duration::from_secs(2)).timeout(Duration::from_secs(5)).build()?;
        let stand =
            Self { folder, data, endpoints, proxy, http, shim, disk, supervisor, _listeners: reserved.listeners };
        // Whoever was faster at a port has broken the links.
        for (name, port) in [("postgres", ports.postgres), ("kafka", ports.kafka), ("connect", ports.connect)] {
            let url = stand.component(name)?.url;
            anyhow::ensure!(url.ends_with(&format!(":{port}")), "{name} is at {url}, not at its port {port}");
        }
        Ok(stand)
    }

    /// Stops everything. Without `keep` the files go too; with it, those on the disk are copied to where the others are.
    /// Returns their folder.
    pub(super) async fn stop(self, keep: bool) -> PathBuf {
        if let Ok(Some(client)) = Client::send(&self.data, &Request::Down).await {
            // Whatever still runs ends with this process.
            let _ = client.finish(|_| ()).await;
        }
        let _ = self.supervisor.await;
        let lock = Lock::take(&self.data);
        if keep {
            if let Ok(disk) = self.disk {
                disk.keep(&self.data, &self.folder.join("postgres"));
            }
            return self.folder;
        }
        if let Ok(Some(lock)) = lock {
            let _ = wipe::wipe(&self.data, lock);
        }
        drop(self.disk);
        let _ = std::fs::remove_dir_all(&self.folder);
        self.folder
    }

    /// The disk of PostgreSQL, or why it has none of its own.
    pub(super) fn disk(&self) -> Result<&Disk, &'static str> {
        self.disk.as_ref().map_err(|why| *why)
    }

    /// What steps clocks, or why nothing does.
    pub(super) fn shim(&self) -> Result<&Shim, &'static str> {
        self.shim.as_ref().map_err(|why| *why)
    }

    /// Where the supervisor writes what runs.
    pub(super) fn state_file(&self) -> PathBuf {
        self.data.state_file()
    }

    /// What the supervisor says of all.
    pub(super) fn state(&self) -> anyhow::Result<State> {
        State::read(&self.data)?.context("the state of the stack")
    }

    /// What it says of the first instance of one.
    pub(super) fn component(&self, name: &str) -> anyhow::Result<ComponentState> {
        let components = self.state()?.components;
        components.into_iter().find(|one| one.name == name).with_context(|| format!("there is no {name}"))
    }

    /// The process of a component that runs.
    pub(super) fn process(&self, name: &str) -> anyhow::Result<ProcessId> {
        self.component(name)?.process().with_context(|| format!("{name} does not run"))
    }

    /// Whether every component is ready.
    pub(super) fn all_ready(&self) -> bool {
        self.state().is_ok_and(|state| state.components.iter().all(|one| one.state == Phase::Ready))
    }

    /// Has the supervisor do something and waits until it is done.
    pub(super) async fn ask(&self, request: Request) -> anyhow::Result<()> {
        let client = Client::send(&self.data, &request).await?.context("the supervisor is gone")?;
        client.finish(|_| ()).await.with_context(|| format!("{request:?}"))?;
        Ok(())
    }

    /// A connection of the superuser, past the proxy.
    pub(super) async fn database(&self, name: &str) -> anyhow::Result<PgConnection> {
        let options: sqlx::postgres::PgConnectOptions = self.endpoints.database("postgres", name).parse()?;
        let connecting = options.connect();
        Ok(tokio::time::timeout(Duration::from_secs(5), connecting).await.context("connecting to PostgreSQL")??)
    }

    /// One value of a database.
    pub(super) async fn value<T>(&self, database: &str, query: &'static str) -> anyhow::Result<T>
    where
        T: Send + Unpin + for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
    {
        let mut connection = self.database(database).await?;
        let value = sqlx::query_scalar(query).fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok(value)
    }

    /// The text of `/metrics` of each instance of `service` that answers.
    pub(super) async fn metrics(&self, service: &str) -> Vec<String> {
        let components = self.state().map(|state| state.components).unwrap_or_default();
        let mut texts = Vec::new();
        for instance in components.iter().filter(|one| one.name == service) {
            let Ok(answer) = self.http.get(format!("{}/metrics", instance.url)).send().await else { continue };
            texts.extend(answer.text().await.ok());
        }
        texts
    }
}

/// Ports that nobody else may take meanwhile.
struct Reserved {
    /// Of PostgreSQL, Kafka and Connect.
    servers: [Reservation; 3],
    /// Of the broker's listeners, held as long as it may be killed and started again.
    listeners: [Reservation; 2],
}

/// Chooses the servers' ports and opens a proxy for every link.
async fn links(proxy: &Proxy) -> anyhow::Result<(Ports, Links, Reserved)> {
    let free = Reservation::free;
    let reserved = Reserved { servers: [free()?, free()?, free()?], listeners: [free()?, free()?] };
    let [postgres, kafka, connect] = reserved.servers.each_ref().map(Reservation::port);
    let ports = Ports { postgres, kafka, connect };
    let [for_services, for_connect] = reserved.listeners.each_ref().map(Reservation::port);
    let to_postgres = proxy.open(Link::ServicesPostgres, ports.postgres).await?;
    let mut postgres: std::collections::BTreeMap<String, u16> =
        SERVICES.iter().map(|service| (service.name.to_owned(), to_postgres)).collect();
    postgres.insert("order-api".into(), proxy.open(Link::OrderApiPostgres, ports.postgres).await?);
    postgres.insert(CONNECT.into(), proxy.open(Link::ConnectPostgres, ports.postgres).await?);
    let advertised = proxy.open(Link::ServicesKafka, for_services).await?;
    let services_to_kafka = Some(Listener { port: for_services, advertised });
    let advertised = proxy.open(Link::ConnectKafka, for_connect).await?;
    let connect_to_kafka = Some(Listener { port: for_connect, advertised });
    Ok((ports, Links { postgres, services_to_kafka, connect_to_kafka }, reserved))
}

fn append(file: &Path, line: &str) {
    use std::io::Write as _;
    let opened = std::fs::OpenOptions::new().create(true).append(true).open(file);
    // A line of a log is no reason to end the stack.
    let _ = opened.and_then(|mut file| writeln!(file, "{} {line}", chrono::Utc::now().format("%H:%M:%S%.3f")));
}

/// Looks again and again, every 100 ms, until there is something.
pub(super) async fn until<T>(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = look().await {
            return Ok(found);
        }
        anyhow::ensure!(start.elapsed() < limit, "waited {} s for {what}", limit.as_secs());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
