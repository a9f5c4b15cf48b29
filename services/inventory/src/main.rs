fn main() -> std::process::ExitCode {
    shared::service::main::<inventory::Inventory>()
}
