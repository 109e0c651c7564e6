//! The shipping service as a program.

fn main() -> std::process::ExitCode {
    service_kit::run(shipping_svc::SERVICE, shipping_svc::build)
}
