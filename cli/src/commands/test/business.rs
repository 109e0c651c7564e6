//! Chaos is a layer, never a line of business code.

use tokio::process::Command;

use super::run::Runner;

/// What serves orders, with the crates it is made of.
const BUSINESS: &[&str] = &["services/", "crates/saga/", "crates/orders/", "crates/messaging/"];
/// Whose business faults are, and what has to know the topics of shared state, to send nothing there.
const FAULTS_OWN: &[&str] = &[
    "services/chaos-svc/",
    "services/fault-proxy/",
    "services/gameday-svc/",
    "services/streams-analytics/",
    "services/dlq-admin/src/target.rs",
];
/// The product's name, in the ways it is written, and a carrier of parcels.
const NAMES: &[&str] = &["chaos symphony", "chaos-symphony", "chaossymphony", "chaos parcel"];

/// Every line of business code that names chaos.
pub(super) async fn check(runner: &Runner) -> anyhow::Result<Vec<String>> {
    let mut list = Command::new("git");
    list.args(["ls-files", "--cached", "--others", "--exclude-standard", "-z", "--"]).args(BUSINESS);
    let files = runner.output(list).await?;
    let mut broken = Vec::new();
    for file in files.split('\0').filter(|file| is_business(file)) {
        let Ok(text) = std::fs::read_to_string(runner.root().join(file)) else { continue };
        broken.extend(naming(&text).map(|line| format!("{file}:{line} is business code and names chaos")));
    }
    Ok(broken)
}

fn is_business(file: &str) -> bool {
    file.ends_with(".rs") && file.contains("/src/") && !FAULTS_OWN.iter().any(|own| file.starts_with(own))
}

/// The numbers of the lines that do.
fn naming(text: &str) -> impl Iterator<Item = usize> {
    let names_chaos = |line: &str| {
        let line = line.to_lowercase();
        NAMES.iter().fold(line, |line, name| line.replace(name, "")).contains("chaos")
    };
    text.lines().zip(1..).filter(move |(line, _)| names_chaos(line)).map(|(_, number)| number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_that_asks_for_faults_is_found_and_one_that_says_who_it_is_is_not() {
        let found = |text| naming(text).collect::<Vec<_>>();
        assert_eq!(found("let source = \"/chaos-symphony/x\";\n// of Chaos Symphony\n"), [0_usize; 0]);
        assert_eq!(found("use x;\nuse service_kit::chaos::Faults;\nif CHAOS {}\n"), [2, 3]);
        assert!(is_business("services/payment-svc/src/commands/charge.rs"));
        assert!(
            !is_business("services/payment-svc/tests/it/commands.rs") && !is_business("services/chaos-svc/src/a.rs")
        );
    }
}
