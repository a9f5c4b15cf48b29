fn main() -> std::process::ExitCode {
    shared::service::main::<shipping::Shipping>()
}
