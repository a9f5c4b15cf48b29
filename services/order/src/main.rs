fn main() -> std::process::ExitCode {
    shared::service::main::<order::Order>()
}
