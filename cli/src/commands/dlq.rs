//! `symphony dlq`: lists dead letters, shows one, repairs it, sends it back or gives it up; runs campaigns.

mod campaign;
mod discard;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use comfy_table::{Table, presets};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::api::{Api, problem};

const SERVICE: &str = "dlq-admin";

/// Dead letters: list, show, repair, send back, give up.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

/// Which letters are meant; what is not said is any.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Filter {
    /// Only of this original topic
    #[arg(long)]
    topic: Option<String>,
    /// Only with this reason
    #[arg(long)]
    reason: Option<String>,
    /// Only of this consumer group
    #[arg(long)]
    group: Option<String>,
    /// Only with this key
    #[arg(long)]
    key: Option<String>,
    /// Only of this group of errors
    #[arg(long)]
    fingerprint: Option<String>,
    /// Only edited ones (true), or those only that were not (false)
    #[arg(long)]
    edited: Option<bool>,
}

impl Filter {
    fn is_empty(&self) -> bool {
        self.conditions().is_empty()
    }

    fn conditions(&self) -> Vec<(&'static str, String)> {
        let text = [
            ("topic", &self.topic),
            ("reason", &self.reason),
            ("group", &self.group),
            ("key", &self.key),
            ("fingerprint", &self.fingerprint),
        ];
        let text = text.into_iter().filter_map(|(name, value)| Some((name, value.clone()?)));
        text.chain(self.edited.map(|edited| ("edited", edited.to_string()))).collect()
    }

    fn json(&self) -> Value {
        let mut filter: serde_json::Map<String, Value> =
            self.conditions().into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        if let Some(edited) = self.edited {
            filter.insert("edited".to_owned(), edited.into());
        }
        filter.into()
    }
}

/// What to do with dead letters.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum Command {
    /// Lists dead letters, the newest first
    #[command(after_help = "Example:\n  symphony dlq list --state NEW --topic payment.requested")]
    List {
        #[command(flatten)]
        filter: Filter,
        /// Only in this state: NEW, REPLAYING, SENT, UNCONFIRMED, REPROCESSED, FAILED_AGAIN, DISCARDED
        #[arg(long)]
        state: Option<String>,
        #[command(flatten)]
        page: Page,
    },
    /// Shows letters with the same trouble together, the most frequent first
    #[command(after_help = "Example:\n  symphony dlq groups --limit 10")]
    Groups {
        #[command(flatten)]
        page: Page,
    },
    /// Shows a letter: its bytes, headers, cause and history
    #[command(
        after_help = "Examples:\n  symphony dlq show 5b2f4f4e-6a0a-5d7b-9a57-0d7f2f3a4b5c\n  symphony dlq show 5b2f4f4e-6a0a-5d7b-9a57-0d7f2f3a4b5c --save broken.json"
    )]
    Show {
        /// The letter
        id: Uuid,
        /// Write the message's whole value, as it came, to this file
        #[arg(long, value_name = "FILE")]
        save: Option<PathBuf>,
    },
    /// Sends a letter's message back to its topic
    #[command(after_help = "Example:\n  symphony dlq replay 5b2f4f4e-6a0a-5d7b-9a57-0d7f2f3a4b5c")]
    Replay {
        /// The letter
        id: Uuid,
        #[command(flatten)]
        by: By,
    },
    /// Repairs a letter's message; the original is kept, and a replay sends the repaired one
    #[command(
        after_help = "Example:\n  symphony dlq edit 5b2f4f4e-6a0a-5d7b-9a57-0d7f2f3a4b5c --payload repaired.json"
    )]
    Edit {
        /// The letter
        id: Uuid,
        /// A file with the new value
        #[arg(long, value_name = "FILE", required_unless_present = "headers")]
        payload: Option<PathBuf>,
        /// A header to set, NAME=VALUE
        #[arg(long = "header", value_name = "NAME=VALUE")]
        headers: Vec<String>,
        #[command(flatten)]
        by: By,
    },
    /// Gives a letter up, or all that match
    #[command(
        after_help = "Examples:\n  symphony dlq discard 5b2f4f4e-6a0a-5d7b-9a57-0d7f2f3a4b5c --reason 'a test order'\n  symphony dlq discard --topic shipping.requested --dead-for invalid-json --reason 'a broken test' --dry-run"
    )]
    Discard(discard::Args),
    /// Sends many letters back in waves that grow while they are processed
    Campaign(campaign::Args),
    /// Shows who did what, refusals too, the newest first
    #[command(after_help = "Example:\n  symphony dlq audit --limit 200")]
    Audit {
        #[command(flatten)]
        page: Page,
    },
}

/// Which part of a list.
#[derive(clap::Args, Clone, Debug)]
pub struct Page {
    /// How many at most, 1 to 500
    #[arg(long, default_value_t = 50)]
    limit: u16,
    /// Where the page before this one said to go on
    #[arg(long)]
    cursor: Option<String>,
}

impl Page {
    fn query(&self) -> Vec<(&'static str, String)> {
        let cursor = self.cursor.clone().map(|cursor| ("cursor", cursor));
        [("limit", self.limit.to_string())].into_iter().chain(cursor).collect()
    }
}

/// Who acts.
#[derive(clap::Args, Clone, Debug)]
pub struct By {
    /// Who acts, for the audit [default: the user of this process]
    #[arg(long)]
    actor: Option<String>,
}

impl By {
    fn name(&self) -> String {
        let user = || std::env::var("USER").or(std::env::var("LOGNAME")).ok();
        self.actor.clone().or_else(user).unwrap_or_else(|| "anonymous".to_owned())
    }
}

/// Carries the command out. It fails when the service refuses.
pub async fn run(args: &Args, api: &Api, json: bool) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::List { filter, state, page } => {
            let mut query = [filter.conditions(), page.query()].concat();
            query.extend(state.clone().map(|state| ("state", state)));
            let page = api.get(SERVICE, "/api/dlq/messages", &query).await?;
            let columns = ["id", "state", "topic", "partition", "offset", "group", "key", "reason"];
            print_page(json, &page, &columns)?;
        }
        Command::Groups { page } => {
            let page = api.get(SERVICE, "/api/dlq/groups", &page.query()).await?;
            print_page(json, &page, &["fingerprint", "count", "new", "topic", "group", "reason", "lastSeen", "error"])?;
        }
        Command::Audit { page } => {
            let page = api.get(SERVICE, "/api/dlq/audit", &page.query()).await?;
            print_page(json, &page, &["at", "actor", "act", "messageId", "campaignId", "result", "detail"])?;
        }
        Command::Show { id, save: Some(file) } => {
            let request = api.request(Method::GET, SERVICE, &format!("/api/dlq/messages/{id}/bytes"))?;
            let answer = request.send().await.with_context(|| format!("{SERVICE} does not answer"))?;
            let status = answer.status();
            if !status.is_success() {
                return Err(anyhow!("{SERVICE} answered {status}: {}", problem(&answer.text().await?)));
            }
            let bytes = answer.bytes().await?;
            std::fs::write(file, &bytes).with_context(|| file.display().to_string())?;
            eprintln!("{} bytes in {}", bytes.len(), file.display());
        }
        Command::Show { id, save: None } => {
            let letter = api.get(SERVICE, &format!("/api/dlq/messages/{id}"), &[]).await?;
            if json {
                outln!("{letter}");
            } else {
                show(&letter)?;
            }
        }
        Command::Replay { id, by } => {
            let letter = act(api, Method::POST, &format!("/api/dlq/messages/{id}/replay"), by, &json!({})).await?;
            told(json, &letter)?;
        }
        Command::Edit { id, payload, headers, by } => {
            let changes = changes(payload.as_ref(), headers)?;
            let letter = act(api, Method::PUT, &format!("/api/dlq/messages/{id}"), by, &changes).await?;
            told(json, &letter)?;
        }
        Command::Discard(args) => discard::run(args, api, json).await?,
        Command::Campaign(args) => return campaign::run(args, api, json).await,
    }
    Ok(ExitCode::SUCCESS)
}

/// The value as text, so that it is sent as it is in the file.
fn changes(payload: Option<&PathBuf>, headers: &[String]) -> anyhow::Result<Value> {
    let mut changes = json!({});
    if let Some(file) = payload {
        changes["payload"] = std::fs::read_to_string(file).with_context(|| file.display().to_string())?.into();
    }
    for header in headers {
        let (name, value) = header.split_once('=').ok_or_else(|| anyhow!("{header:?} is no NAME=VALUE"))?;
        changes["headers"][name] = value.into();
    }
    Ok(changes)
}

async fn act(api: &Api, method: Method, path: &str, by: &By, body: &Value) -> anyhow::Result<Value> {
    let request = api.request(method, SERVICE, path)?.header("X-Actor", by.name()).json(body);
    let response = request.send().await.with_context(|| format!("{SERVICE} does not answer"))?;
    let status = response.status();
    let text = response.text().await?;
    if !status.is_success() {
        return Err(anyhow!("{SERVICE} answered {status}: {}", problem(&text)));
    }
    serde_json::from_str(&text).with_context(|| format!("{SERVICE} answered {text:?}"))
}

fn told(json: bool, letter: &Value) -> anyhow::Result<()> {
    if json {
        outln!("{letter}");
    } else {
        outln!("{} {}", text(&letter["id"]), text(&letter["state"]));
    }
    Ok(())
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        // A key can have anything in it, and a terminal obeys some of that.
        Value::String(text) => text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect(),
        other => other.to_string(),
    }
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().map(|name| name.to_uppercase()));
    table
}

fn print_page(json: bool, page: &Value, columns: &[&str]) -> anyhow::Result<()> {
    if json {
        outln!("{page}");
        return Ok(());
    }
    let mut rows = table(columns);
    for item in page["items"].as_array().into_iter().flatten() {
        rows.add_row(columns.iter().map(|name| text(&item[*name])));
    }
    outln!("{rows}");
    if let Some(cursor) = page["nextCursor"].as_str() {
        eprintln!("more with --cursor {cursor}");
    }
    Ok(())
}

fn show(letter: &Value) -> anyhow::Result<()> {
    for name in ["id", "state", "topic", "partition", "offset", "group", "key", "reason", "attempts", "firstFailedAt"] {
        outln!("{name:<14} {}", text(&letter[name]));
    }
    for name in ["sagaId", "replayId", "replayOf", "failedAs"] {
        if letter[name].is_string() {
            outln!("{name:<14} {}", text(&letter[name]));
        }
    }
    outln!("{:<14} {}", "error", text(&letter["cause"]["error"]));
    let cut = if letter["payload"]["cut"] == true { " (the first 64 KiB; --save FILE has all of it)" } else { "" };
    outln!("{:<14} {}{cut}", "payload", text(&letter["payload"]["text"]));
    if letter["edit"].is_object() {
        outln!("{:<14} {}", "edited", text(&letter["edit"]["payload"]["text"]));
    }
    let mut headers = table(&["header", "value"]);
    for header in letter["headers"].as_array().into_iter().flatten() {
        let value = if header["base64"].is_string() { &header["base64"] } else { &header["text"] };
        headers.add_row([text(&header["name"]), text(value)]);
    }
    outln!("\n{headers}\n");
    let columns = ["at", "event", "actor", "replayId", "detail"];
    let mut history = table(&columns);
    for event in letter["history"].as_array().into_iter().flatten() {
        history.add_row(columns.map(|name| text(&event[name])));
    }
    outln!("{history}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_not_printed() {
        assert_eq!(text(&json!("a\u{1b}[2J\0b")), "a\u{fffd}[2J\u{fffd}b");
    }

    #[test]
    fn a_filter_says_the_same_in_a_query_and_in_a_body() {
        let filter = Filter { topic: Some("t".into()), edited: Some(true), ..Filter::default() };
        assert_eq!(filter.conditions(), [("topic", "t".to_owned()), ("edited", "true".to_owned())]);
        assert_eq!(filter.json(), json!({ "topic": "t", "edited": true }));
    }

    #[test]
    fn headers_of_an_edit_are_names_with_values() {
        let changes = changes(None, &["x-a=b=c".to_owned()]).unwrap();
        assert_eq!(changes, json!({ "headers": { "x-a": "b=c" } }));
        assert!(super::changes(None, &["x".to_owned()]).is_err());
    }
}
