fn main() -> std::process::ExitCode {
    shared::service::main::<payment::Payment>()
}
