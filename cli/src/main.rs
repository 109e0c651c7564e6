fn main() -> std::process::ExitCode {
    symphony_cli::main()
}
