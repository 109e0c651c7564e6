//! `symphony sagas`: lists sagas, shows timelines, checks definitions.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use comfy_table::{Table, presets};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::api::Api;

/// Lists sagas, shows one, or checks a definition.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

/// What to do with sagas.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum Command {
    /// Lists sagas, the newest first
    #[command(after_help = "Example:\n  symphony sagas list --state PARKED")]
    List {
        /// Only of this definition
        #[arg(long)]
        definition: Option<String>,
        /// Only in this state: RUNNING, COMPENSATING, COMPLETED, COMPENSATED, PARKED
        #[arg(long)]
        state: Option<String>,
        /// How many at most, 1 to 500
        #[arg(long, default_value_t = 50)]
        limit: u16,
        /// Where the page before this one said to go on
        #[arg(long)]
        cursor: Option<String>,
    },
    /// Shows a saga: its steps and its timeline
    #[command(after_help = "Example:\n  symphony sagas show 0197a3c2-5d5c-7c3e-9e62-3f1f0e6f0a11")]
    Show {
        /// The saga; for an order, the order's id
        id: Uuid,
    },
    /// Checks definition files; needs no running stack
    #[command(after_help = "Example:\n  symphony sagas check sagas/order.yaml")]
    Check {
        /// The files
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

/// Runs one of the three. `check` fails when a file is wrong.
pub async fn run(args: &Args, api: &Api, json: bool) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::List { definition, state, limit, cursor } => {
            let mut query = vec![("limit", limit.to_string())];
            query.extend(definition.clone().map(|definition| ("definition", definition)));
            query.extend(state.clone().map(|state| ("state", state)));
            query.extend(cursor.clone().map(|cursor| ("cursor", cursor)));
            let page = api.get("orchestrator", "/api/sagas", &query).await?;
            if json {
                outln!("{page}");
            } else {
                list(&page)?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Show { id } => {
            let saga = api.get("orchestrator", &format!("/api/sagas/{id}"), &[]).await?;
            if json {
                outln!("{saga}");
            } else {
                show(&saga)?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Check { files } => check(files, json),
    }
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn list(page: &Value) -> anyhow::Result<()> {
    let mut rows = table(&["SAGA", "DEFINITION", "STATE", "VERSION", "REASON"]);
    for saga in page["items"].as_array().into_iter().flatten() {
        rows.add_row(["sagaId", "definition", "state", "version", "reason"].map(|name| text(&saga[name])));
    }
    outln!("{rows}");
    if let Some(cursor) = page["nextCursor"].as_str() {
        eprintln!("more with --cursor {cursor}");
    }
    Ok(())
}

fn show(saga: &Value) -> anyhow::Result<()> {
    outln!("saga        {}", text(&saga["sagaId"]));
    outln!("definition  {} ({})", text(&saga["definition"]), text(&saga["digest"]));
    outln!("state       {} at version {}", text(&saga["state"]), text(&saga["version"]));
    if saga["reason"].is_string() {
        outln!("reason      {}", text(&saga["reason"]));
    }
    let mut steps = table(&["STEP", "STATE", "ATTEMPTS", "DEADLINE", "OUTPUT"]);
    for step in saga["steps"].as_array().into_iter().flatten() {
        steps.add_row(["name", "state", "attempts", "deadline", "output"].map(|name| text(&step[name])));
    }
    outln!("\n{steps}\n");
    let mut timeline = table(&["VERSION", "AT", "TYPE", "STEP", "MESSAGE", "DETAIL"]);
    for entry in saga["timeline"].as_array().into_iter().flatten() {
        timeline.add_row(["version", "at", "type", "step", "messageId", "detail"].map(|name| text(&entry[name])));
    }
    outln!("{timeline}");
    Ok(())
}

/// Tells everything that is wrong with the files, as `file:line:column: message` with a hint.
fn check(files: &[PathBuf], json: bool) -> anyhow::Result<ExitCode> {
    let mut diagnostics = Vec::new();
    for file in files {
        let yaml = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        match saga::Definition::parse(&yaml, &file.display().to_string()) {
            Ok(definition) if !json => told(file, &definition)?,
            Ok(_) => {}
            Err(found) => diagnostics.extend(found),
        }
    }
    if json {
        outln!("{}", json!({ "diagnostics": diagnostics }));
    } else {
        for diagnostic in &diagnostics {
            outln!("{diagnostic}");
        }
    }
    Ok(if diagnostics.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn told(file: &Path, definition: &saga::Definition) -> anyhow::Result<()> {
    let steps: Vec<&str> = definition.steps().iter().map(|step| step.name.as_str()).collect();
    outln!(
        "{}: ok: {} version {}, steps {}, digest {}",
        file.display(),
        definition.name(),
        definition.version(),
        steps.join(", "),
        &definition.digest()[..12]
    );
    Ok(())
}
