//! `symphony dlq campaign`

use std::process::ExitCode;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{By, Filter, Page, SERVICE, act, table, text};
use crate::api::Api;

/// How often `--watch` looks.
const INTERVAL: Duration = Duration::from_millis(500);

/// Sends many letters back in waves that grow while they are processed.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Clone, Debug)]
enum Command {
    /// Starts a campaign over all new letters that match
    #[command(after_help = "Example:\n  symphony dlq campaign start --topic shipping.requested --rate 50 --dry-run")]
    Start {
        #[command(flatten)]
        filter: Filter,
        /// Messages a second, at most [default: as the service is configured, 10]
        #[arg(long)]
        rate: Option<u32>,
        /// Stop when a larger share of what was sent failed again, 0 to 1 [default: as configured, 0.1]
        #[arg(long, value_parser = share)]
        max_failure_share: Option<f64>,
        /// Only tell what it would do
        #[arg(long)]
        dry_run: bool,
        /// Wait for its end; exit 1 unless it completes
        #[arg(long, conflicts_with = "dry_run")]
        watch: bool,
        #[command(flatten)]
        by: By,
    },
    /// Lists campaigns, the newest first
    #[command(after_help = "Example:\n  symphony dlq campaign list --limit 10")]
    List {
        #[command(flatten)]
        page: Page,
    },
    /// Shows a campaign with its progress
    #[command(after_help = "Example:\n  symphony dlq campaign show 01a1fd92-26a2-73f9-9d40-138fbf717e22")]
    Show {
        /// The campaign
        id: Uuid,
    },
    /// Sends nothing more until it is resumed
    #[command(after_help = "Example:\n  symphony dlq campaign pause 01a1fd92-26a2-73f9-9d40-138fbf717e22")]
    Pause(Verb),
    /// Goes on where it was paused
    #[command(after_help = "Example:\n  symphony dlq campaign resume 01a1fd92-26a2-73f9-9d40-138fbf717e22")]
    Resume(Verb),
    /// Sends nothing more, ever
    #[command(after_help = "Example:\n  symphony dlq campaign cancel 01a1fd92-26a2-73f9-9d40-138fbf717e22")]
    Cancel(Verb),
}

#[derive(clap::Args, Clone, Debug)]
struct Verb {
    /// The campaign
    id: Uuid,
    #[command(flatten)]
    by: By,
}

/// JSON has no NaN: the service would take it for nothing said.
fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "must be from 0 to 1".to_owned())
}

/// Carries the command out.
pub(super) async fn run(args: &Args, api: &Api, json: bool) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::Start { filter, rate, max_failure_share, dry_run, watch, by } => {
            let mut body = json!({ "filter": filter.json(), "dryRun": dry_run });
            if let Some(rate) = rate {
                body["ratePerSecond"] = json!(rate);
            }
            if let Some(share) = max_failure_share {
                body["maxFailureShare"] = json!(share);
            }
            let mut campaign = act(api, Method::POST, "/api/dlq/replays", by, &body).await?;
            while *watch && matches!(campaign["state"].as_str(), Some("RUNNING" | "PAUSED")) {
                if !json {
                    eprintln!("{}", line(&campaign));
                }
                tokio::time::sleep(INTERVAL).await;
                campaign = api.get(SERVICE, &format!("/api/dlq/replays/{}", text(&campaign["id"])), &[]).await?;
            }
            print(json, &campaign)?;
            let good = !watch || campaign["state"] == "COMPLETED";
            return Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::List { page } => {
            let page = api.get(SERVICE, "/api/dlq/replays", &page.query()).await?;
            if json {
                outln!("{page}");
                return Ok(ExitCode::SUCCESS);
            }
            let mut rows = table(&["id", "state", "wave", "total", "reprocessed", "failedAgain", "refused", "actor"]);
            for campaign in page["items"].as_array().into_iter().flatten() {
                let progress = &campaign["progress"];
                let (own, counts) = (["id", "state", "wave"], ["total", "reprocessed", "failedAgain", "refused"]);
                let cells = own.iter().map(|name| text(&campaign[*name]));
                let cells = cells.chain(counts.iter().map(|name| text(&progress[*name])));
                rows.add_row(cells.chain([text(&campaign["actor"])]));
            }
            outln!("{rows}");
            if let Some(cursor) = page["nextCursor"].as_str() {
                eprintln!("more with --cursor {cursor}");
            }
        }
        Command::Show { id } => print(json, &api.get(SERVICE, &format!("/api/dlq/replays/{id}"), &[]).await?)?,
        Command::Pause(verb) => print(json, &to(api, verb, "pause").await?)?,
        Command::Resume(verb) => print(json, &to(api, verb, "resume").await?)?,
        Command::Cancel(verb) => print(json, &to(api, verb, "cancel").await?)?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn to(api: &Api, verb: &Verb, name: &str) -> anyhow::Result<Value> {
    act(api, Method::POST, &format!("/api/dlq/replays/{}/{name}", verb.id), &verb.by, &json!({})).await
}

fn line(campaign: &Value) -> String {
    let progress = &campaign["progress"];
    format!(
        "{} wave {}: {} of {} reprocessed, {} failed again, {} refused, {} in flight",
        text(&campaign["state"]),
        campaign["wave"],
        progress["reprocessed"],
        progress["total"],
        progress["failedAgain"],
        progress["refused"],
        progress["inFlight"]
    )
}

fn print(json: bool, campaign: &Value) -> anyhow::Result<()> {
    if json {
        outln!("{campaign}");
        return Ok(());
    }
    let refusals = if campaign["dryRun"] == true {
        outln!(
            "{} match, {} would be sent, {} refused",
            campaign["matched"],
            campaign["sendable"],
            campaign["refused"]
        );
        &campaign["refusals"]
    } else {
        outln!("{}", text(&campaign["id"]));
        outln!("{}", line(campaign));
        if campaign["reason"].is_string() {
            outln!("{}", text(&campaign["reason"]));
        }
        &campaign["progress"]["refusals"]
    };
    for refusal in refusals.as_array().into_iter().flatten() {
        outln!("{} {}: {}", text(&refusal["state"]), refusal["count"], text(&refusal["reason"]));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_number_from_0_to_1() {
        assert_eq!(share("0.25"), Ok(0.25));
        for wrong in ["NaN", "inf", "-0.1", "1.1", "10%", ""] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }
}
