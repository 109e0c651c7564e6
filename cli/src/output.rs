//! What commands print.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use comfy_table::{Table, presets};
use stack::supervisor::state::{ComponentState, Kind, State};

/// Like `println!` in a function that returns a `Result`; see [`line`].
macro_rules! outln {
    ($($argument:tt)*) => {
        $crate::output::line(format_args!($($argument)*))?
    };
}

/// Prints a line of data. Unlike `println!` it fails, and does not panic, when nobody reads on
/// (`symphony status | head -1`); `main` then ends quietly.
pub(crate) fn line(text: impl std::fmt::Display) -> io::Result<()> {
    writeln!(io::stdout(), "{text}")
}

/// The state as JSON, as it is in `state.json`.
pub(crate) fn json(state: &State) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(state)?)
}

/// One row a component, the sum of their memory, why one is not ready, and the alarms.
pub(crate) fn table(state: &State) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["NAME", "KIND", "INSTANCE", "PID", "STATE", "MEMORY", "RESTARTS", "URL"]);
    for component in &state.components {
        table.add_row(row(component));
    }
    let mut text = table.trim_fmt();
    let sum: u64 = state.components.iter().filter_map(|component| component.memory_bytes).sum();
    if sum > 0 {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n {} in all", megabytes(sum));
    }
    for component in &state.components {
        if let Some(reason) = component.reason.as_deref().and_then(|reason| reason.lines().next()) {
            let _ = write!(text, "\n {}: {reason}", component.label());
        }
    }
    for (component, wait) in
        state.components.iter().flat_map(|component| component.waiting.iter().map(move |wait| (component, wait)))
    {
        let (since, cause) =
            (wait.since.format("%Y-%m-%d %H:%M:%S UTC"), wait.cause.lines().next().unwrap_or_default());
        let _ = write!(text, "\n {}: consumer {} waits since {since}", component.label(), wait.consumer);
        if let Some(lag) = wait.lag {
            let _ = write!(text, ", {lag} messages behind");
        }
        let _ = write!(text, ": {cause}");
    }
    for alarm in &state.alarms {
        let since = alarm.since.format("%Y-%m-%d %H:%M:%S UTC");
        let _ = write!(text, "\n ALARM {} since {}: {}", alarm.name, since, alarm.detail);
    }
    text
}

fn row(component: &ComponentState) -> [String; 8] {
    let kind = match component.kind {
        Kind::Server => "server",
        Kind::Service => "service",
    };
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".into());
    [
        component.name.clone(),
        kind.into(),
        component.instance.to_string(),
        or_dash(component.pid.map(|pid| pid.to_string())),
        component.state.as_str().into(),
        or_dash(component.memory_bytes.map(megabytes)),
        component.restarts.to_string(),
        component.url.clone(),
    ]
}

fn megabytes(bytes: u64) -> String {
    format!("{} MB", bytes.div_ceil(1_000_000))
}
