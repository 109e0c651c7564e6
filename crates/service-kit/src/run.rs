//! The `main` of every service.

use std::env;
use std::future::Future;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use messaging::BoxError;

use crate::app::App;
use crate::config::{self, ConfigErrors, ServiceConfig};
use crate::lifecycle::Outcome;
use crate::problem::chain;
use crate::serve::serve;
use crate::{Service, VERSION, lifecycle, shutdown, telemetry};

/// The configuration is wrong: EX_USAGE of sysexits.
const EXIT_CONFIG: u8 = 64;
/// The command line is wrong.
const EXIT_USAGE: u8 = 2;

enum Command {
    Serve,
    PrintConfig,
    OpenApi,
    Help,
    Version,
}

/// The whole `main` of a service.
///
/// Serves until SIGTERM or SIGINT; `--print-config`, `--openapi`, `--version` and `--help` print and exit. Exit codes: 0
/// stopped as asked, 1 failed, 2 wrong usage, 64 wrong configuration.
///
/// `build` wires the service, without touching the network.
pub fn run<C, F, Fut>(service: Service, build: F) -> ExitCode
where
    C: ServiceConfig,
    F: FnOnce(C, App) -> Fut,
    Fut: Future<Output = Result<App, BoxError>>,
{
    let command = match command(env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned())) {
        Ok(command) => command,
        Err(argument) => {
            return complain(
                &service,
                &format!("unexpected argument {argument:?}; --help tells what there is"),
                EXIT_USAGE,
            );
        }
    };
    match command {
        Command::Help => print(&help(&service)),
        Command::Version => print(&format!("{} {VERSION}\n", service.name)),
        Command::PrintConfig => match config::load::<C>(&service, env::vars_os()) {
            Ok(loaded) => print(&config::to_toml(&loaded)),
            Err(errors) => refuse(&service, &errors),
        },
        Command::OpenApi => open_api(service, build),
        Command::Serve => match config::load::<C>(&service, env::vars_os()) {
            Ok(loaded) => run_to_the_end(service, loaded.config, build),
            Err(errors) => refuse(&service, &errors),
        },
    }
}

fn command(arguments: impl IntoIterator<Item = String>) -> Result<Command, String> {
    let mut arguments = arguments.into_iter();
    let command = match arguments.next().as_deref() {
        None => Command::Serve,
        Some("--print-config") => Command::PrintConfig,
        Some("--openapi") => Command::OpenApi,
        Some("--help" | "-h") => Command::Help,
        Some("--version" | "-V") => Command::Version,
        Some(other) => return Err(other.to_owned()),
    };
    match arguments.next() {
        None => Ok(command),
        Some(surplus) => Err(surplus),
    }
}

fn help(service: &Service) -> String {
    format!(
        "{name} {VERSION}, a service of Chaos Symphony\n\n\
         Usage: {name} [--print-config | --openapi | --version | --help]\n\n\
         Without an option it serves until SIGTERM or SIGINT.\n\n\
         \x20 --print-config  print the effective configuration as TOML, secrets masked\n\
         \x20 --openapi       print the OpenAPI document of the HTTP API\n\
         \x20 --version       print the version\n\
         \x20 --help          print this\n\n\
         Configuration comes from the environment: section [http], key port is HTTP_PORT.\n\
         Example: HTTP_PORT=0 LOG_FORMAT=pretty {name}\n\n\
         Exit codes: 0 stopped as asked, 1 failed, 2 wrong usage, 64 wrong configuration.\n\n\
         Defaults:\n\n{own}\n{common}",
        name = service.name,
        own = service.defaults.trim_end(),
        common = config::COMMON_DEFAULTS,
    )
}

/// Builds the service from its defaults alone, so that the document is the same everywhere.
fn open_api<C, F, Fut>(service: Service, build: F) -> ExitCode
where
    C: ServiceConfig,
    F: FnOnce(C, App) -> Fut,
    Fut: Future<Output = Result<App, BoxError>>,
{
    let config: C = match config::load(&service, []) {
        Ok(loaded) => loaded.config,
        Err(errors) => return refuse(&service, &errors),
    };
    // Without brokers a Kafka client that the wiring makes has nobody to connect to.
    let mut common = config.common().clone();
    common.kafka.bootstrap_servers.clear();
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&service, &format!("no runtime: {error}"), 1),
    };
    let app = runtime.block_on(build(config, App::new(service, common)));
    let printed = app.and_then(|app| {
        let (_, document) = lifecycle::describe(&service, app.router);
        Ok(document.to_pretty_json()?)
    });
    runtime.shutdown_background();
    match printed {
        Ok(document) => print(&format!("{document}\n")),
        Err(error) => complain(&service, &chain(&*error), 1),
    }
}

fn run_to_the_end<C, F, Fut>(service: Service, config: C, build: F) -> ExitCode
where
    C: ServiceConfig,
    F: FnOnce(C, App) -> Fut,
    Fut: Future<Output = Result<App, BoxError>>,
{
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&service, &format!("no runtime: {error}"), 1),
    };
    let code = runtime.block_on(async {
        let common = config.common().clone();
        let deadline = common.shutdown.deadline();
        let app = App::new(service, common);
        // From here on errors are logged, not printed.
        let telemetry = match telemetry::init(&service, app.instance(), &app.common.log, &app.common.otlp) {
            Ok(telemetry) => telemetry,
            Err(error) => return complain(&service, &chain(&*error), 1),
        };
        let outcome = serve_until_stopped(app, config, build, deadline).await;
        // It blocks, and the export needs the runtime's other threads.
        if let Err(error) = tokio::task::spawn_blocking(|| telemetry.flush()).await {
            tracing::warn!(%error, "the last traces are lost");
        }
        match outcome {
            Outcome::Stopped => ExitCode::SUCCESS,
            Outcome::Failed => ExitCode::FAILURE,
        }
    });
    // What was not drained in time is not waited for.
    runtime.shutdown_background();
    code
}

async fn serve_until_stopped<C, F, Fut>(app: App, config: C, build: F, deadline: Duration) -> Outcome
where
    C: ServiceConfig,
    F: FnOnce(C, App) -> Fut,
    Fut: Future<Output = Result<App, BoxError>>,
{
    let stopping = app.shutdown();
    let started = async {
        shutdown::listen(stopping.clone())?;
        let app = build(config, app).await?;
        Ok::<_, BoxError>(serve(app).await?)
    };
    match started.await {
        Ok(running) => {
            tokio::spawn(async move {
                stopping.cancelled().await;
                if let Err(error) = shutdown::hard_stop_after(deadline) {
                    tracing::warn!(%error, "no thread to enforce the shutdown's deadline");
                }
            });
            running.wait().await
        }
        Err(error) => {
            tracing::error!(error = chain(&*error), "the service cannot start");
            Outcome::Failed
        }
    }
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

/// Standard output may be closed by whoever reads it, `head` for one: no reason to panic.
fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn refuse(service: &Service, errors: &ConfigErrors) -> ExitCode {
    complain(service, &errors.to_string(), EXIT_CONFIG)
}

fn complain(service: &Service, text: &str, code: u8) -> ExitCode {
    // Nowhere is left to report a closed standard error.
    let _ = writeln!(io::stderr(), "{}: {text}", service.name);
    ExitCode::from(code)
}
