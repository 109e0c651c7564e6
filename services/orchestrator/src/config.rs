use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use service_kit::{Common, ServiceConfig};

/// The orchestrator's configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    #[serde(flatten)]
    common: Common,
    /// `[sagas]`
    pub sagas: SagasConfig,
}

/// `[sagas]`: what is run, and how much of it at once.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SagasConfig {
    /// Folder of the definitions.
    pub dir: PathBuf,
    /// Starts wait while so many sagas are in flight on this replica's partitions.
    pub max_in_flight: u32,
}

impl ServiceConfig for Config {
    fn common(&self) -> &Common {
        &self.common
    }

    fn validate(&self, errors: &mut Vec<String>) {
        if self.sagas.dir.as_os_str().is_empty() {
            errors.push("sagas.dir is empty: name the folder of the saga definitions".to_owned());
        }
        if self.sagas.max_in_flight == 0 {
            errors.push("sagas.max_in_flight is 0: no saga would ever start".to_owned());
        }
    }
}
