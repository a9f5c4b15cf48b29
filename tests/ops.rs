//! What operators and contributors rely on: the audit, the command line, the load generator, roles, dependencies.

mod audit;
mod command_line;
mod dependencies;
mod invariants;
mod load;
mod roles;
