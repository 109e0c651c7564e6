//! `symphony audit`: checks the invariants I1 to I8 of the running stack.

use std::process::ExitCode;
use std::time::Duration;

use crate::api::Api;
use crate::audit::{Target, audit};

/// Checks what must always hold, from the databases and topics.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example:\n  symphony audit --json | jq .findings[].violations")]
pub struct Args {
    /// `host:port` of PostgreSQL, if not that of the stack
    #[arg(long)]
    pub postgres: Option<String>,
    /// `host:port` of a Kafka broker, if not that of the stack
    #[arg(long)]
    pub kafka: Option<String>,
    /// Put before the name of each database
    #[arg(long, default_value = "")]
    pub database_prefix: String,
    /// Put before the name of each topic and consumer group
    #[arg(long, default_value = "")]
    pub topic_prefix: String,
    /// Seconds without progress after which ends that have not reached every service count as lost
    #[arg(long, default_value_t = 30)]
    pub settle: u64,
}

/// What an order needs to reach its end.
const PATH: &[&str] =
    &["postgres", "kafka", "connect", "order-api", "orchestrator", "payment-svc", "inventory-svc", "shipping-svc"];

impl Args {
    /// Whether another system than the stack is audited.
    fn is_elsewhere(&self) -> bool {
        self.postgres.is_some()
            || self.kafka.is_some()
            || !format!("{}{}", self.database_prefix, self.topic_prefix).is_empty()
    }
}

/// Prints what was counted and each violation; fails on any.
pub async fn run(args: &Args, api: &Api, json: bool) -> anyhow::Result<ExitCode> {
    let target = Target {
        postgres: args.postgres.clone().map_or_else(|| api.address("postgres"), Ok)?,
        database_prefix: args.database_prefix.clone(),
        kafka: args.kafka.clone().map_or_else(|| api.address("kafka"), Ok)?,
        topic_prefix: args.topic_prefix.clone(),
        settle_within: Duration::from_secs(args.settle),
        ready_since: if args.is_elsewhere() { None } else { api.ready_since(PATH)? },
    };
    let mut report = audit(&target).await?;
    if !args.is_elsewhere() {
        report.warnings = api.restless(PATH)?;
    }
    if json {
        outln!("{}", serde_json::to_string(&report)?);
    } else {
        outln!("{report}");
    }
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
