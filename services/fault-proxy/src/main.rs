//! The fault proxy as a program.

fn main() -> std::process::ExitCode {
    service_kit::run(fault_proxy::SERVICE, fault_proxy::build)
}
