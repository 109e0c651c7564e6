//! The dead letters of every topic in one place: found, searched, repaired, sent back one by one or in campaigns, and
//! followed until they are processed.
//!
//! | module | concern |
//! |---|---|
//! | `letter` `fingerprint` | one form for the letters of all who write them |
//! | `index` | reading every `*.dlq` topic into the database |
//! | `replay` `target` `sagas` | sending back: once, to where it came from, and never to a saga that has ended |
//! | `judge` | what became of what was sent |
//! | `edit` `discard` | the other acts on a letter |
//! | `campaign` | many letters, in waves |
//! | `audit` | who asked for what |
//! | `retention` | what ended long ago is removed |
//! | `background` | the tasks that follow replays, run campaigns and remove |
//! | `routes` `view` `filter` | the HTTP API |

use std::sync::Arc;

use messaging::Consumer;
use service_kit::{App, BoxError, Service};

mod audit;
mod background;
mod campaign;
mod config;
mod discard;
mod edit;
mod filter;
mod fingerprint;
mod index;
mod judge;
mod letter;
mod metrics;
mod replay;
mod retention;
mod routes;
mod sagas;
mod target;
mod view;

pub use config::Config;

/// This service, with its documented defaults.
pub const SERVICE: Service = Service { name: "dlq-admin", defaults: include_str!("../config.default.toml") };

/// The consumer group that reads dead letters.
const GROUP: &str = "dlq-admin";

/// How the names of dead letter topics end.
const SUFFIX: &str = ".dlq";

/// Every SQL statement of this service, by name.
pub const STATEMENTS: &[(&str, &str)] = &[
    ("INDEX", index::INDEX),
    ("RECORD", audit::RECORD),
    ("CHECK", replay::CHECK),
    ("CLAIM", replay::CLAIM),
    ("LOAD_CLAIMED", replay::LOAD_CLAIMED),
    ("MARK_SENT", replay::MARK_SENT),
    ("UNCLAIM", replay::UNCLAIM),
    ("NOT_SENT", replay::NOT_SENT),
    ("TAKE_OVER", replay::TAKE_OVER),
    ("EXPIRE", replay::EXPIRE),
    ("UNDER_WAY", judge::UNDER_WAY),
    ("ANY_UNDER_WAY", judge::ANY_UNDER_WAY),
    ("JUDGE", judge::JUDGE),
    ("LOSE", judge::LOSE),
    ("COUNT", judge::COUNT),
    ("ORIGINAL", edit::ORIGINAL),
    ("EDIT", edit::EDIT),
    ("DISCARD", discard::DISCARD),
    ("STATE", discard::STATE),
    ("DISCARD_MATCHED", discard::DISCARD_MATCHED),
    ("COUNT_DISCARDS", discard::COUNT_DISCARDS),
    ("LAST", discard::LAST),
    ("LEASE", campaign::LEASE),
    ("STILL_RUNS", campaign::STILL_RUNS),
    ("COUNTS", campaign::COUNTS),
    ("NEXT_WAVE", campaign::NEXT_WAVE),
    ("NEXT_ITEMS", campaign::NEXT_ITEMS),
    ("MARK_ITEMS", campaign::MARK_ITEMS),
    ("END", campaign::END),
    ("START", campaign::start::START),
    ("COUNT_MATCHES", campaign::start::COUNT_MATCHES),
    ("MATCHED_SAGAS", campaign::start::MATCHED_SAGAS),
    ("MOVE", campaign::verbs::MOVE),
    ("SHOW_CAMPAIGN", campaign::view::SHOW_CAMPAIGN),
    ("LIST_CAMPAIGNS", campaign::view::LIST_CAMPAIGNS),
    ("LIST_LETTERS", routes::list::LIST_LETTERS),
    ("LIST_GROUPS", routes::groups::LIST_GROUPS),
    ("SHOW_LETTER", routes::show::SHOW_LETTER),
    ("SHOW_BODY", routes::show::SHOW_BODY),
    ("SHOW_EDIT", routes::show::SHOW_EDIT),
    ("ORIGINAL_BYTES", routes::bytes::ORIGINAL_BYTES),
    ("EDITED_BYTES", routes::bytes::EDITED_BYTES),
    ("SHOW_HISTORY", routes::show::SHOW_HISTORY),
    ("LIST_AUDIT", routes::audit::LIST_AUDIT),
    ("FORGET_ITEMS", retention::FORGET_ITEMS),
    ("FORGET_CAMPAIGN", retention::FORGET_CAMPAIGN),
    ("FORGET_LETTERS", retention::FORGET_LETTERS),
    ("FORGET_GROUPS", retention::FORGET_GROUPS),
];

/// The service, wired. Opens no connection.
///
/// # Errors
/// When a client cannot be made from the configuration.
pub async fn build(config: Config, mut app: App) -> Result<App, BoxError> {
    let (pool, producer, kafka) = (app.database()?, app.producer()?, app.kafka().clone());
    let sagas = Arc::new(sagas::Sagas::new(config.orchestrator));
    let interval = config.replay.poll_interval();
    let replays = Arc::new(replay::Replays::new(pool.clone(), producer, sagas.clone(), config.replay));
    app.on_start(async move { Ok(sagas.load(&config.sagas.dir)?) });

    let indexer = index::Indexer::new(pool.clone(), kafka.topic_prefix.clone());
    let layers = app.layers();
    app.consumer(Consumer::raw(GROUP, Arc::new(indexer), SUFFIX).layers(layers));
    let judge = judge::Judge::new(pool.clone(), kafka);
    app.task("replays", background::follow(judge, replays.clone(), interval, app.shutdown()));
    let runner = campaign::Runner::new(pool.clone(), replays.clone(), config.campaign.lease_ms);
    app.task("campaigns", background::run_campaigns(runner, replays.clone(), interval, app.shutdown()));
    app.task("retention", background::forget(pool.clone(), config.retention.ended_days, app.shutdown()));
    app.routes(routes::router(routes::Api { pool, replays, campaigns: config.campaign }));
    Ok(app)
}
