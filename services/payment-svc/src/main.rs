//! The payment service as a program.

fn main() -> std::process::ExitCode {
    service_kit::run(payment_svc::SERVICE, payment_svc::build)
}
