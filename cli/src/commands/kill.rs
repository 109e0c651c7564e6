//! `symphony kill`

use std::process::ExitCode;
use std::str::FromStr;

use nix::sys::signal::Signal;
use stack::supervisor::control::Request;

use super::supervisor;
use crate::Context;

#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example:\n  symphony kill payment-svc\n  symphony kill orchestrator --signal STOP")]
pub struct Args {
    /// A component as `symphony status` lists it: NAME, or NAME/INSTANCE for one of several
    name: String,

    /// The signal, by name or number; STOP and CONT suspend a process and let it go on
    #[arg(long, short, default_value = "KILL", value_parser = parse_signal)]
    signal: Signal,
}

pub async fn run(args: &Args, context: &Context) -> anyhow::Result<ExitCode> {
    let request = Request::Kill { name: args.name.clone(), signal: args.signal as i32 };
    supervisor::change(context, &request, &format!("{} sent to {}", args.signal, args.name)).await?;
    Ok(ExitCode::SUCCESS)
}

fn parse_signal(text: &str) -> Result<Signal, String> {
    let known = match text.parse::<i32>() {
        Ok(number) => Signal::try_from(number).ok(),
        Err(_) => {
            let name = text.to_ascii_uppercase();
            let name = if name.starts_with("SIG") { name } else { format!("SIG{name}") };
            Signal::from_str(&name).ok()
        }
    };
    known.ok_or_else(|| format!("{text} is no signal"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_may_be_given_in_every_usual_way() {
        for text in ["9", "KILL", "kill", "SIGKILL", "sigkill"] {
            assert_eq!(parse_signal(text), Ok(Signal::SIGKILL), "{text}");
        }
        assert!(parse_signal("KILLED").is_err());
        assert!(parse_signal("900").is_err());
    }
}
