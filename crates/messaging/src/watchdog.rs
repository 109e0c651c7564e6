//! Ends the process when its Kafka client cannot go on. A restarted process always can: nothing that matters
//! is in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// `EX_SOFTWARE` of sysexits.h: the supervisor sees that it was no ordinary stop.
const EXIT_CODE: i32 = 70;

/// Logs the reason and exits.
#[expect(clippy::disallowed_methods, reason = "the client is dead and may hang in its destructor")]
pub(crate) fn exit(client: &str, reason: &str) -> ! {
    tracing::error!(client, reason, "the Kafka client cannot go on: this process exits to start afresh");
    std::process::exit(EXIT_CODE)
}

/// What librdkafka reports about a client, in one place for producer and consumer. It reports a lost connection
/// many times a second while it tries again, so those only show at debug level: that a broker is missed is said
/// once, by whoever waits for it.
pub(crate) fn client_error(client: &str, error: &KafkaError, reason: &str) {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::Fatal) => exit(client, reason),
        Some(code) if is_connection_loss(code) => tracing::debug!(client, reason, "a broker connection failed"),
        _ => tracing::warn!(client, reason, error = %error, "the Kafka client reports an error"),
    }
}

/// Whether `code` says no more than that a broker cannot be reached.
pub(crate) fn is_connection_loss(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::OperationTimedOut
            | RDKafkaErrorCode::Resolve
    )
}

/// Counts a loop's steps, so that one which hangs can be seen from outside.
#[derive(Clone, Default)]
pub(crate) struct Progress(Arc<AtomicU64>);

impl Progress {
    pub(crate) fn step(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Starts a thread that exits the process when no step was made for `limit`. It counts its own seconds
    /// awake, so that a process that was suspended (SIGSTOP, a paused machine) is not taken for a stuck one.
    pub(crate) fn watch(&self, client: String, limit: Duration) -> std::io::Result<()> {
        let steps = Arc::downgrade(&self.0);
        std::thread::Builder::new().name("watchdog".into()).spawn(move || {
            let (mut last, mut silent) = (u64::MAX, Duration::ZERO);
            // The loop ends with its consumer: then nobody holds the counter any more.
            while let Some(steps) = steps.upgrade() {
                let now = steps.load(Ordering::Relaxed);
                drop(steps);
                silent = if now == last { silent + Duration::from_secs(1) } else { Duration::ZERO };
                last = now;
                if silent >= limit {
                    exit(&client, "the consumer's loop made no step within the limit");
                }
                std::thread::sleep(Duration::from_secs(1));
            }
        })?;
        Ok(())
    }
}
