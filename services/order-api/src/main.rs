fn main() -> std::process::ExitCode {
    service_kit::run(order_api::SERVICE, order_api::build)
}
