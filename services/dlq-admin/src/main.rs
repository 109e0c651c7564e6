//! The dead letter service as a program.

fn main() -> std::process::ExitCode {
    service_kit::run(dlq_admin::SERVICE, dlq_admin::build)
}
