use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use service_kit::{Common, ServiceConfig};

/// The service's configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    #[serde(flatten)]
    common: Common,
    /// `[sagas]`
    pub sagas: SagasConfig,
    /// `[orchestrator]`
    pub orchestrator: OrchestratorConfig,
    /// `[replay]`
    pub replay: ReplayConfig,
    /// `[campaign]`
    pub campaign: CampaignConfig,
    /// `[retention]`
    pub retention: RetentionConfig,
}

/// `[sagas]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SagasConfig {
    /// Folder of the definitions.
    pub dir: PathBuf,
}

/// `[orchestrator]`: who knows where a saga is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrchestratorConfig {
    /// Base URL.
    pub url: String,
    /// File with its `host:port`; empty: none.
    pub address_file: PathBuf,
    /// Milliseconds.
    pub timeout_ms: u64,
}

/// `[replay]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayConfig {
    /// How long a claim holds. Milliseconds.
    pub claim_ms: u64,
    /// How often what is under way is looked at. Milliseconds.
    pub poll_interval_ms: u64,
    /// After so long without a sign from its group a replay is shown as not confirmed. Milliseconds.
    pub confirm_within_ms: u64,
    /// Topics to which letters of Spring and Kafka Connect may go back that lie on another topic's dead letters.
    pub foreign_targets: Vec<String>,
}

/// `[campaign]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CampaignConfig {
    /// Messages a second unless said.
    pub rate_per_second: u32,
    /// The most that can be said.
    pub max_rate_per_second: u32,
    /// Share of failures at which a campaign stops, unless said.
    pub max_failure_share: f64,
    /// How long a silent replica keeps a campaign. Milliseconds.
    pub lease_ms: u64,
    /// Sagas asked for in a dry run.
    pub dry_run_sagas: usize,
}

/// `[retention]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionConfig {
    /// How long letters and campaigns are kept after their end. Days; 0: for ever.
    pub ended_days: u32,
}

impl ReplayConfig {
    /// How often what is under way is looked at.
    pub fn poll_interval(&self) -> Duration {
        Duration::from_millis(self.poll_interval_ms)
    }
}

impl ServiceConfig for Config {
    fn common(&self) -> &Common {
        &self.common
    }

    fn validate(&self, errors: &mut Vec<String>) {
        let message_timeout = u64::from(self.common.kafka.message_timeout_ms);
        if self.replay.claim_ms <= message_timeout {
            errors.push(format!(
                "replay.claim_ms ({}) must be above kafka.message_timeout_ms ({message_timeout}): a message that may \
                 still arrive would be sent again",
                self.replay.claim_ms
            ));
        }
        if self.replay.confirm_within_ms <= self.replay.claim_ms {
            errors.push(format!(
                "replay.confirm_within_ms ({}) must be above replay.claim_ms ({}): nothing would be sent again in time",
                self.replay.confirm_within_ms, self.replay.claim_ms
            ));
        }
        if self.replay.poll_interval_ms < 50 {
            errors.push(format!(
                "replay.poll_interval_ms is {}: below 50 it is a busy loop",
                self.replay.poll_interval_ms
            ));
        }
        if !self.orchestrator.url.starts_with("http://") {
            errors.push(format!("orchestrator.url is {:?}: it must be http://host:port", self.orchestrator.url));
        }
        let CampaignConfig { rate_per_second, max_rate_per_second, max_failure_share, lease_ms, .. } = self.campaign;
        if !(1..=max_rate_per_second).contains(&rate_per_second) {
            errors.push(format!(
                "campaign.rate_per_second is {rate_per_second}: it must be from 1 to campaign.max_rate_per_second \
                 ({max_rate_per_second})"
            ));
        }
        if !(0.0..=1.0).contains(&max_failure_share) {
            errors.push(format!("campaign.max_failure_share is {max_failure_share}: it is a share, 0.0 to 1.0"));
        }
        if lease_ms < 1_000 {
            errors.push(format!("campaign.lease_ms is {lease_ms}: below 1000 a short pause loses the campaign"));
        }
    }
}
