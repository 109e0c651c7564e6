//! A consumer group's member: one loop that owns partitions, handles what is ready in batches and commits
//! offsets only after everything those batches caused is acknowledged.

mod batch;
mod context;
mod lag;
mod memory;
mod note;
mod run;
mod timers;
mod wait;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::client::{self, ClientError};
use crate::watchdog::Progress;
use crate::{BatchHandler, HandlerError, KafkaConfig, Layers, Outgoing, Producer};
use batch::Batches;
#[doc(hidden)] // for simulations
pub use batch::split;
use context::GroupContext;
use run::Loop;
use wait::Waits;
pub use wait::{Wait, WaitKind};

/// Says whether starts should wait so that answers go first.
#[async_trait]
pub trait Gate: Send + Sync + 'static {
    /// Asked about five times a second with the partitions owned; while it is true, deferred topics pause.
    async fn pause_deferred(&self, partitions: &[i32]) -> bool;
}

/// Timers of a consumer's state. They fire only on the owner of their partition, and only after the
/// answers were read up to where they ended when the timer was found due: a backlog is no lateness.
#[async_trait]
pub trait Timers: Send + Sync + 'static {
    /// Which of `partitions` have a timer due by the database's clock.
    ///
    /// # Errors
    /// When the database cannot be asked; it is asked again.
    async fn due(&self, partitions: &[i32]) -> Result<Due, HandlerError>;

    /// Commits the transitions of timers in `partitions` that were due at `cutoff`, leaving each timer's row
    /// due, and returns what is to be published. Firing again gives the same messages.
    ///
    /// # Errors
    /// When nothing was committed; it is called again.
    async fn fire(&self, partitions: &[i32], cutoff: DateTime<Utc>) -> Result<Fired, HandlerError>;

    /// Moves or removes the rows of fired timers; called only after all their messages are acknowledged.
    ///
    /// # Errors
    /// When nothing was committed; the timers fire again.
    async fn settle(&self, receipts: &[Uuid]) -> Result<(), HandlerError>;
}

/// The answer of [`Timers::due`].
#[derive(Clone, Debug)]
pub struct Due {
    /// The database's clock at the question.
    pub now: DateTime<Utc>,
    /// Partitions that have a timer due.
    pub partitions: Vec<i32>,
}

/// The result of [`Timers::fire`].
#[derive(Clone, Debug, Default)]
pub struct Fired {
    /// To be published before the timers are settled.
    pub messages: Vec<Outgoing>,
    /// What to settle afterwards.
    pub receipts: Vec<Uuid>,
    /// More timers were due than one call takes.
    pub more: bool,
}

/// How a consumer is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsumerHealth {
    /// It has not got an answer from its group yet.
    Joining,
    /// It owns so many partitions; none is normal for a replica that stands by.
    Consuming {
        /// Partitions owned, over all topics.
        partitions: usize,
    },
    /// Its batch waits for a dependency.
    Waiting(Wait),
    /// It has left its group.
    Stopped,
}

/// A running consumer.
pub struct ConsumerHandle {
    /// The group's name without prefix.
    pub group: &'static str,
    /// Its latest state.
    pub health: watch::Receiver<ConsumerHealth>,
    /// Ends when the loop has drained and left its group.
    pub stopped: tokio::task::JoinHandle<()>,
}

/// What a consumer group reads and who handles it. Nothing runs before [`spawn`](Consumer::spawn).
pub struct Consumer<H> {
    group: &'static str,
    handler: Arc<H>,
    topics: Vec<Topic>,
    /// Set for a consumer that reads raw: how the names of its topics end.
    suffix: Option<&'static str>,
    gate: Option<Arc<dyn Gate>>,
    timers: Option<Arc<dyn Timers>>,
    layers: Layers,
}

/// A raw consumer finds new topics after so many milliseconds.
const TOPICS_FOUND_WITHIN_MS: &str = "3000";

struct Topic {
    name: String,
    event_type: String,
    deferred: bool,
}

impl<H: BatchHandler> Consumer<H> {
    /// A member of `group`.
    pub fn new(group: &'static str, handler: Arc<H>) -> Self {
        Consumer {
            group,
            handler,
            topics: Vec::new(),
            suffix: None,
            gate: None,
            timers: None,
            layers: Layers::default(),
        }
    }

    /// A member of `group` that reads every topic whose name ends in `suffix`, those too that are made later, and
    /// takes records of any shape: there is no envelope to read (the one that `decode` gets holds nothing but the key
    /// as its subject), and nothing is dead-lettered. Whatever fails is tried again until it works.
    pub fn raw(group: &'static str, handler: Arc<H>, suffix: &'static str) -> Self {
        Consumer { suffix: Some(suffix), ..Consumer::new(group, handler) }
    }

    /// The group's name without prefix.
    pub fn group(&self) -> &'static str {
        self.group
    }

    /// Reads `name`; a message there of another `ce_type` is a dead letter.
    #[must_use]
    pub fn topic(mut self, name: &str, event_type: &str) -> Self {
        self.topics.push(Topic { name: name.to_owned(), event_type: event_type.to_owned(), deferred: false });
        self
    }

    /// Reads `name`, but not while the [`Gate`] asks to pause.
    #[must_use]
    pub fn deferred_topic(mut self, name: &str, event_type: &str) -> Self {
        self.topics.push(Topic { name: name.to_owned(), event_type: event_type.to_owned(), deferred: true });
        self
    }

    /// Who decides whether deferred topics pause.
    #[must_use]
    pub fn gate(mut self, gate: Arc<dyn Gate>) -> Self {
        self.gate = Some(gate);
        self
    }

    /// Timers to fire for the partitions owned.
    #[must_use]
    pub fn timers(mut self, timers: Arc<dyn Timers>) -> Self {
        self.timers = Some(timers);
        self
    }

    /// What messages pass on their way to the handler, outermost first.
    #[must_use]
    pub fn layers(mut self, layers: Layers) -> Self {
        self.layers = layers;
        self
    }

    /// Joins the group and runs until `shutdown`, then drains and leaves. Must be called inside a runtime.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration or no thread can be started; the network comes later.
    pub fn spawn(
        self,
        config: &KafkaConfig,
        producer: Producer,
        shutdown: CancellationToken,
    ) -> Result<ConsumerHandle, ClientError> {
        let (health, health_receiver) = watch::channel(ConsumerHealth::Joining);
        let progress = Progress::default();
        let context =
            GroupContext::new(self.group, Duration::from_millis(config.drain_timeout_ms.into()), health.clone());
        let shared = context.shared();
        let mut client = client::consumer(config, self.group);
        if self.suffix.is_some() {
            client.set("topic.metadata.refresh.interval.ms", TOPICS_FOUND_WITHIN_MS);
        }
        let consumer: BaseConsumer<GroupContext> = client
            .create_with_context(context)
            .map_err(|source| ClientError::new(format!("create the consumer of {}", self.group), source))?;
        let observer: BaseConsumer = client::base(config, self.group)
            .create()
            .map_err(|source| ClientError::new(format!("create the observer of {}", self.group), source))?;
        let mut names: Vec<String> = self.topics.iter().map(|topic| config.topic(&topic.name)).collect();
        // A name that begins with ^ is a regular expression. Of all that a topic's name may have, only the dot means
        // something in one.
        let literally = |text: &str| text.replace('.', "\\.");
        names.extend(self.suffix.map(|suffix| format!("^{}.*{}$", literally(&config.topic_prefix), literally(suffix))));
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        consumer.subscribe(&names).map_err(|source| ClientError::new(format!("subscribe {}", self.group), source))?;
        let batches = Batches {
            group: self.group,
            config: config.clone(),
            event_types: self
                .topics
                .iter()
                .map(|topic| (topic.name.clone(), topic.event_type.clone()))
                .collect::<HashMap<_, _>>(),
            raw: self.suffix.is_some(),
            handler: self.handler,
            layers: self.layers,
            producer,
            progress: progress.clone(),
            waits: Waits::new(self.group, health.clone()),
        };
        let limit = Duration::from_millis(config.progress_timeout_ms.into());
        if let Err(error) = progress.watch(self.group.to_owned(), limit) {
            crate::watchdog::exit(self.group, &format!("no thread for the watchdog: {error}"));
        }
        let deferred =
            self.topics.iter().filter(|topic| topic.deferred).map(|topic| config.topic(&topic.name)).collect();
        let runtime = tokio::runtime::Handle::current();
        let looping = Loop::new(
            consumer,
            observer,
            shared,
            Arc::new(batches),
            deferred,
            self.gate,
            self.timers,
            runtime,
            shutdown,
        );
        let stopped = tokio::task::spawn_blocking(move || {
            looping.run();
            health.send_replace(ConsumerHealth::Stopped);
        });
        Ok(ConsumerHandle { group: self.group, health: health_receiver, stopped })
    }
}
