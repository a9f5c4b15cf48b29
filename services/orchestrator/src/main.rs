fn main() -> std::process::ExitCode {
    shared::service::main::<orchestrator::Orchestrator>()
}
