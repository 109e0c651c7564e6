//! `symphony dlq discard`

use anyhow::bail;
use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

use super::{By, Filter, act, told};
use crate::api::Api;

/// Gives a letter up, or all that match.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// The letter; without it all that match
    id: Option<Uuid>,
    /// Only of this original topic
    #[arg(long)]
    topic: Option<String>,
    /// Only of this consumer group
    #[arg(long)]
    group: Option<String>,
    /// Only with this key
    #[arg(long)]
    key: Option<String>,
    /// Only of this group of errors
    #[arg(long)]
    fingerprint: Option<String>,
    /// Only dead for this reason
    #[arg(long, value_name = "REASON")]
    dead_for: Option<String>,
    /// Only in this state: NEW, UNCONFIRMED [default: NEW]
    #[arg(long)]
    state: Option<String>,
    /// Why they are given up
    #[arg(long)]
    reason: String,
    /// Only tell how many that would be
    #[arg(long, conflicts_with = "id")]
    dry_run: bool,
    #[command(flatten)]
    by: By,
}

/// Carries the command out.
pub(super) async fn run(args: &Args, api: &Api, json: bool) -> anyhow::Result<()> {
    let filter = Filter {
        topic: args.topic.clone(),
        reason: args.dead_for.clone(),
        group: args.group.clone(),
        key: args.key.clone(),
        fingerprint: args.fingerprint.clone(),
        edited: None,
    };
    if let Some(id) = args.id {
        if !filter.is_empty() || args.state.is_some() {
            bail!("name a letter or conditions, not both");
        }
        let body = json!({ "reason": args.reason });
        return told(json, &act(api, Method::POST, &format!("/api/dlq/messages/{id}/discard"), &args.by, &body).await?);
    }
    let mut filter = filter.json();
    if let Some(state) = &args.state {
        filter["state"] = json!(state);
    }
    let body = json!({ "filter": filter, "reason": args.reason, "dryRun": args.dry_run });
    let done = act(api, Method::POST, "/api/dlq/discards", &args.by, &body).await?;
    if json {
        outln!("{done}");
    } else if args.dry_run {
        outln!("{} letters would be discarded", done["discarded"]);
    } else {
        outln!("{} letters discarded", done["discarded"]);
    }
    Ok(())
}
