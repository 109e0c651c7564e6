//! `symphony scale`

use std::process::ExitCode;

use stack::supervisor::MOST_INSTANCES;
use stack::supervisor::control::Request;

use super::supervisor;
use crate::Context;

#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example:\n  symphony scale orchestrator 2")]
pub struct Args {
    /// Name of a service; servers run once
    name: String,

    /// How many instances shall run, 1 to 16
    #[arg(value_parser = parse_instances)]
    instances: u32,
}

pub async fn run(args: &Args, context: &Context) -> anyhow::Result<ExitCode> {
    let Args { name, instances } = args;
    let request = Request::Scale { name: name.clone(), instances: *instances };
    supervisor::change(context, &request, &format!("{name} runs {instances} times")).await?;
    Ok(ExitCode::SUCCESS)
}

fn parse_instances(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(0) => Err("1 is the least; `symphony stop NAME` stops all instances of a service".into()),
        Ok(number @ 1..=MOST_INSTANCES) => Ok(number),
        _ => Err(format!(
            "a whole number from 1 to {MOST_INSTANCES}: the topics have 4 partitions, so already a fifth instance \
             of a consumer only stands by"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_instances_out_of_range_is_refused_with_the_reason() {
        assert_eq!((parse_instances("1"), parse_instances("16")), (Ok(1), Ok(16)));
        assert!(parse_instances("0").unwrap_err().contains("symphony stop"));
        for text in ["17", "-1", "99999999999", "two"] {
            assert!(parse_instances(text).unwrap_err().contains("1 to 16"), "{text}");
        }
    }
}
