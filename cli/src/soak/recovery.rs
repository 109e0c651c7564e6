//! How long it takes until everything works again.

use std::time::{Duration, Instant};

use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::faults::Scene;

/// How often it is looked at.
const INTERVAL: Duration = Duration::from_millis(250);
const COMPLETED: &str = "SELECT EXISTS (SELECT FROM orders WHERE id = ANY($1) AND status = 'COMPLETED')";

/// Waits until every component is ready and an order that was accepted after `from` has been completed. Gives the time
/// from `from`, or nothing when it takes longer than `patience`.
pub(super) async fn measure(scene: Scene<'_>, from: Instant, patience: Duration) -> Option<Duration> {
    let mut connection = None;
    let mut is_through = false;
    loop {
        is_through = is_through || some_completed(scene, from, &mut connection).await;
        if is_through && scene.stand.all_ready() {
            return Some(from.elapsed());
        }
        if from.elapsed() > patience {
            return None;
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn some_completed(scene: Scene<'_>, from: Instant, connection: &mut Option<PgConnection>) -> bool {
    let ids: Vec<Uuid> = scene.load.accepted_since(from, 500);
    if ids.is_empty() {
        return false;
    }
    if connection.is_none() {
        *connection = scene.stand.database("orders").await.ok();
    }
    let Some(open) = connection.as_mut() else { return false };
    match sqlx::query_scalar(COMPLETED).bind(&ids).fetch_one(open).await {
        Ok(completed) => completed,
        Err(_) => {
            // The server may just have died.
            *connection = None;
            false
        }
    }
}
