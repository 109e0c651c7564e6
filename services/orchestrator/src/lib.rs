//! The orchestrator runs sagas: it reads triggers and replies from Kafka, lets the pure machine of the `saga` crate
//! decide, keeps state, history and timers in PostgreSQL, and sends commands. What a saga is, it knows only from
//! definitions: those in the files of `SAGAS_DIR`, and those in its database that sagas in flight are pinned to.
//!
//! | module | concern |
//! |---|---|
//! | `inbound` `handler` `fold` `outgoing` | a batch of messages: decode, read, decide, write, publish |
//! | `load` `store` `steps` | the one statement that reads, the one that writes, and the packed column |
//! | `timers` | deadlines, and whatever was decided without a message |
//! | `gate` | replies go before starts |
//! | `definitions` | files, stored bodies, topics |
//! | `operator` `routes` | the HTTP API |

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use messaging::Consumer;
use service_kit::{App, BoxError, Service, db};

mod config;
mod definitions;
#[cfg(test)]
mod fixtures;
mod fold;
mod gate;
mod handler;
mod inbound;
mod load;
mod metrics;
mod operator;
mod outgoing;
mod routes;
mod steps;
mod store;
mod timers;

pub use config::{Config, SagasConfig};

/// What the orchestrator decides, apart from the database and Kafka that it decides for. `tests/sim` runs it as it is
/// under a seeded scheduler.
#[doc(hidden)]
pub mod decisions {
    pub use crate::definitions::Pinned;
    pub use crate::fold::Folded;
    pub use crate::handler::decide as decide_batch;
    pub use crate::inbound::{Inbound, decode};
    pub use crate::load::{Columns, Snapshot, Stored};
    pub use crate::operator::{Verb, decide as decide_verb};
    pub use crate::store::Changes;
    pub use crate::timers::{DueTimer, Settled, Settlement, Shot, decide as decide_timers};
}

use definitions::Definitions;
use gate::InFlight;
use handler::SagaHandler;
use timers::SagaTimers;

/// The orchestrator, as its `main` names it.
pub const SERVICE: Service = Service { name: "orchestrator", defaults: include_str!("../config.default.toml") };

/// Every statement with its name, so that one test can prepare them all.
pub const STATEMENTS: &[(&str, &str)] = &[
    ("LOAD_SAGAS", load::LOAD_SAGAS),
    ("WRITE_BATCH", store::WRITE_BATCH),
    ("FIND_DUE", timers::FIND_DUE),
    ("LOAD_DUE", timers::LOAD_DUE),
    ("LOAD_DUE_AGAIN", timers::LOAD_DUE_AGAIN),
    ("SETTLE_TIMERS", timers::SETTLE_TIMERS),
    ("COUNT_IN_FLIGHT", gate::COUNT_IN_FLIGHT),
    ("STORE_DEFINITIONS", definitions::STORE_DEFINITIONS),
    ("FIND_DEFINITION_IDS", definitions::FIND_DEFINITION_IDS),
    ("LOAD_DEFINITIONS", definitions::LOAD_DEFINITIONS),
    ("FIND_UNFINISHED_DEFINITIONS", definitions::FIND_UNFINISHED_DEFINITIONS),
    ("LIST_SAGAS", routes::list::LIST_SAGAS),
    ("LIST_UNFINISHED_SAGAS", routes::list::LIST_UNFINISHED_SAGAS),
    ("SHOW_TIMELINE", routes::show::SHOW_TIMELINE),
    ("LIST_DEFINITIONS", routes::definitions::LIST_DEFINITIONS),
];

/// The consumer group.
const GROUP: &str = "orchestrator";

/// Wires the service.
///
/// # Errors
/// When the database's URL or a Kafka setting cannot be used.
pub async fn build(config: Config, mut app: App) -> Result<App, BoxError> {
    let pool = app.database()?;
    db::join_by_key(&pool);
    let definitions = Arc::new(Definitions::new(pool.clone()));
    let in_flight = Arc::new(InFlight::new(pool.clone(), config.sagas.max_in_flight));
    let replies: Arc<OnceLock<BTreeMap<String, String>>> = Arc::default();

    app.on_start(prepare(config.sagas, definitions.clone(), replies.clone(), app.shutdown()));
    app.routes(routes::router(pool.clone(), definitions.clone()));
    let layers = app.layers();
    app.late_consumer(GROUP, move || {
        let handler = SagaHandler::new(pool.clone(), definitions.clone(), in_flight.clone());
        let timers = SagaTimers::new(pool, definitions.clone(), in_flight.clone());
        let mut consumer =
            Consumer::new(GROUP, Arc::new(handler)).gate(in_flight).timers(Arc::new(timers)).layers(layers);
        for (topic, event_type) in replies.get().into_iter().flatten() {
            consumer = consumer.topic(topic, event_type);
        }
        for definition in definitions.files() {
            let trigger = definition.trigger();
            consumer = consumer.deferred_topic(&trigger.topic, &trigger.event_type);
        }
        consumer
    });
    Ok(app)
}

/// Reads the definitions and stores them before the first saga can start, and finds the topics to read.
async fn prepare(
    config: SagasConfig,
    definitions: Arc<Definitions>,
    replies: Arc<OnceLock<BTreeMap<String, String>>>,
    shutdown: service_kit::CancellationToken,
) -> Result<(), BoxError> {
    let files: Vec<_> = definitions::read_folder(&config.dir)?.into_iter().map(Arc::new).collect();
    db::until_available("storing definitions", &shutdown, || definitions.store(&files)).await?;
    for file in &files {
        tracing::info!(saga.definition = file.name(), version = file.version(), digest = file.digest(), "definition");
    }
    let topics = definitions.reply_topics().await?;
    // Only this sets it, and it runs once.
    let _ = replies.set(topics);
    Ok(())
}
