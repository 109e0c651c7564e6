//! order-api takes orders, makes each durable together with the event that starts its saga, and tells how it ended.

mod apply_end;
mod backlog;
mod body;
mod change_capture;
mod config;
mod get_order;
mod idempotency;
mod insert;
mod list_orders;
mod metrics;
mod model;
mod partitions;
mod place_order;
mod reconciler;
mod status_feed;
mod validation;
mod watch_order;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use messaging::Consumer;
use service_kit::health::Importance;
use service_kit::{App, BoxError, CancellationToken, OpenApiRouter, Service, routes};
use sqlx::PgPool;

pub use config::Config;

use crate::apply_end::{ApplyEnd, END_TOPICS};
use crate::backlog::Backlog;
use crate::change_capture::ChangeCapture;
use crate::idempotency::InFlight;
use crate::status_feed::StatusFeed;
use crate::writer::Writer;

/// This service.
pub const SERVICE: Service = Service { name: "order-api", defaults: include_str!("../config.default.toml") };

/// `ce_source` of its messages.
pub(crate) const SOURCE: &str = "/chaos-symphony/order-api";

/// What requests need.
#[derive(Clone)]
struct Api {
    pool: PgPool,
    writer: Writer,
    in_flight: InFlight,
    feed: StatusFeed,
    backlog: Backlog,
    keep_alive_ms: u64,
    shutdown: CancellationToken,
}

/// The wiring.
///
/// # Errors
/// When the database's URL cannot be read.
pub async fn build(config: Config, mut app: App) -> Result<App, BoxError> {
    let pool = app.database()?;
    let shutdown = app.shutdown();
    let feed = StatusFeed::new(config.events.max_subscribers);
    let backlog = Backlog::new(config.backlog);

    // Writers end when the queue is closed, which is after the last request.
    let (writer, intake) = writer::queue(&config.writer);
    for _ in 0..config.writer.workers {
        let (intake, pool) = (intake.clone(), pool.clone());
        app.task("order writer", async move {
            intake.work(pool).await;
            Ok(())
        });
    }

    let api = Api {
        pool: pool.clone(),
        writer,
        in_flight: InFlight::default(),
        feed: feed.clone(),
        backlog: backlog.clone(),
        keep_alive_ms: config.events.keep_alive_ms,
        shutdown: shutdown.clone(),
    };
    app.routes(
        OpenApiRouter::new()
            .routes(routes!(place_order::place_order, list_orders::list_orders))
            .routes(routes!(get_order::get_order))
            .routes(routes!(watch_order::watch_order))
            .with_state(api),
    );

    let ends = Arc::new(ApplyEnd { pool: pool.clone(), feed: feed.clone() });
    let mut consumer = Consumer::new("order-api", ends).layers(app.layers());
    for (topic, _) in END_TOPICS {
        consumer = consumer.topic(topic.name, topic.event_type);
    }
    // Orders can be taken while Kafka is away: the outbox keeps them.
    app.background_consumer(consumer);

    let poll = feed.poll(pool.clone(), Duration::from_millis(config.events.poll_interval_ms), shutdown.clone());
    app.task("status feed", async move {
        poll.await;
        Ok(())
    });
    let checked = backlog.clone();
    app.health_check("outbox backlog", Importance::Optional, move || std::future::ready(checked.check()));
    let watch = backlog.clone().watch(pool.clone(), shutdown.clone());
    app.task("outbox backlog", async move {
        watch.await;
        Ok(())
    });
    let capture = ChangeCapture::new(config.change_capture);
    let checked = capture.clone();
    app.health_check("change capture", Importance::Optional, move || std::future::ready(checked.check()));
    let watch = capture.watch(pool.clone(), app.kafka().clone(), shutdown.clone());
    app.task("change capture", async move { Ok(watch.await?) });
    let reconcile = reconciler::run(pool.clone(), config.reconciler, backlog, shutdown.clone());
    app.task("order reconciler", async move {
        reconcile.await;
        Ok(())
    });
    let maintain = partitions::run(pool, config.outbox, shutdown);
    app.task("outbox maintenance", async move {
        maintain.await;
        Ok(())
    });
    Ok(app)
}

/// Every statement by name: a test prepares them all against the migrated database.
pub const STATEMENTS: &[(&str, &str)] = &[
    ("INSERT_ORDERS", insert::INSERT_ORDERS),
    ("FIND_ORDERS", insert::FIND_ORDERS),
    ("GET_ORDER", get_order::GET_ORDER),
    ("ITEMS_OF_ORDERS", model::ITEMS_OF_ORDERS),
    ("LIST_ORDERS", list_orders::LIST_ORDERS),
    ("LIST_ORDERS_OF_CUSTOMER", list_orders::LIST_ORDERS_OF_CUSTOMER),
    ("LIST_ORDERS_BY_STATUS", list_orders::LIST_ORDERS_BY_STATUS),
    ("LIST_ORDERS_OF_CUSTOMER_BY_STATUS", list_orders::LIST_ORDERS_OF_CUSTOMER_BY_STATUS),
    ("STATUS_OF_ORDERS", status_feed::STATUS_OF_ORDERS),
    ("APPLY_ENDS", apply_end::APPLY_ENDS),
    ("TAKE_TURN", reconciler::TAKE_TURN),
    ("FIND_STRAGGLERS", reconciler::FIND_STRAGGLERS),
    ("ADVANCE", reconciler::ADVANCE),
    ("REEMIT", reconciler::REEMIT),
    ("MAINTAIN_OUTBOX", partitions::MAINTAIN_OUTBOX),
    ("LOOK_AT_CHANGE_CAPTURE", change_capture::LOOK),
    ("RETAINED_BYTES", backlog::RETAINED_BYTES),
];
