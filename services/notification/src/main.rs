fn main() -> std::process::ExitCode {
    shared::service::main::<notification::Notification>()
}
