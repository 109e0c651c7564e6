//! What became of the orders of a load, from order-api's lists.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::api::Api;

/// The most that order-api gives at once.
const PAGE: usize = 500;
/// Between two looks at orders that have not ended.
const PAUSE: Duration = Duration::from_millis(250);

/// The orders of one customer, all of them placed.
#[derive(Clone, Debug)]
pub struct Ends {
    /// The stack they were placed on.
    pub api: Api,
    /// Whose orders.
    pub customer: String,
    /// How long nothing may answer, and no order end, before this gives up.
    pub patience: Duration,
}

impl Ends {
    /// Returns when none of the orders is PENDING any more, or none has ended for as long as the patience lasts.
    ///
    /// # Errors
    /// When order-api has not answered for so long.
    pub async fn wait(&self) -> anyhow::Result<()> {
        let (mut progress, mut fewest) = (Instant::now(), usize::MAX);
        // The newest orders, those before this place in the list, have all ended, and stay so.
        let mut ended_before = None;
        loop {
            let (mut pending, mut cursor) = (0, ended_before.clone());
            // A page may be empty although others follow: each looks at a stretch of the orders only.
            loop {
                let page = self.page(Some("PENDING"), cursor).await?;
                let found = items(&page).len();
                pending += found;
                cursor = page["nextCursor"].as_str().map(str::to_owned);
                if cursor.is_none() {
                    break;
                }
                if pending == 0 {
                    ended_before.clone_from(&cursor);
                }
                if found == PAGE {
                    // Far from the end: no reason to hurry through thousands.
                    tokio::time::sleep(PAUSE).await;
                }
            }
            if pending == 0 {
                return Ok(());
            }
            if pending < fewest {
                (progress, fewest) = (Instant::now(), pending);
            } else if progress.elapsed() >= self.patience {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// How many orders there are of each status.
    ///
    /// # Errors
    /// When order-api has not answered for as long as the patience lasts.
    pub async fn count(&self) -> anyhow::Result<BTreeMap<String, u64>> {
        let (mut counts, mut cursor) = (BTreeMap::new(), None);
        loop {
            let page = self.page(None, cursor).await?;
            for order in items(&page) {
                let status = order["status"].as_str().unwrap_or_default();
                *counts.entry(status.to_owned()).or_default() += 1;
            }
            cursor = page["nextCursor"].as_str().map(str::to_owned);
            if cursor.is_none() {
                return Ok(counts);
            }
        }
    }

    /// One page, asked for again while the stack does not answer.
    async fn page(&self, status: Option<&str>, cursor: Option<String>) -> anyhow::Result<Value> {
        let mut query = vec![("customerId", self.customer.clone()), ("limit", PAGE.to_string())];
        query.extend(status.map(|status| ("status", status.to_owned())));
        query.extend(cursor.map(|cursor| ("cursor", cursor)));
        let start = Instant::now();
        loop {
            match self.api.get("order-api", "/api/orders", &query).await {
                Err(_) if start.elapsed() < self.patience => tokio::time::sleep(PAUSE).await,
                answered => return answered,
            }
        }
    }
}

fn items(page: &Value) -> &[Value] {
    page["items"].as_array().map_or(&[], Vec::as_slice)
}
