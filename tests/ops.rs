//! The tools of operators and contributors: the audit, the command line, the load generator, roles, dependencies, and the
//! files that list the services.

mod audit;
mod baseline;
mod command_line;
mod commands;
mod cost;
mod dependencies;
mod frozen;
mod invariants;
mod load;
mod roles;
mod secrets;
mod startup;
mod structure_files;
mod up;
