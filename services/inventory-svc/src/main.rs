//! The inventory service as a program.

fn main() -> std::process::ExitCode {
    service_kit::run(inventory_svc::SERVICE, inventory_svc::build)
}
