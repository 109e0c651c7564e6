//! The notification service as a program.

fn main() -> std::process::ExitCode {
    service_kit::run(notification_svc::SERVICE, notification_svc::build)
}
