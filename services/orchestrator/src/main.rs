//! The orchestrator: runs sagas from their definitions.

fn main() -> std::process::ExitCode {
    service_kit::run(orchestrator::SERVICE, orchestrator::build)
}
