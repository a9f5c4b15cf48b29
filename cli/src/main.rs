//! `amends`: starts the suite, talks to it, and runs its services.

#![cfg_attr(not(feature = "suite"), expect(dead_code, reason = "what runs services here is left out"))]

mod api;
mod audit;
mod bench;
mod events;
mod generate;
mod json;
mod load;
mod order;
mod output;
mod parked;
mod run;
mod saga;
mod serve;
mod setup;
mod suite;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::output::complain;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Amends: an order saga over real Kafka and PostgreSQL that loses no money and no stock.
#[derive(Debug, Parser)]
#[command(name = "amends", version, max_term_width = 100)]
struct CommandLine {
    #[cfg(feature = "suite")]
    #[command(subcommand)]
    command: Option<Command>,
    #[cfg(not(feature = "suite"))]
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[cfg(feature = "suite")]
    #[command(flatten)]
    Here(Here),
    /// Place orders and look at them.
    #[command(subcommand)]
    Order(order::Command),
    /// Look at sagas, and have one that is stuck go on.
    #[command(subcommand)]
    Saga(saga::Command),
    /// Say whether the nine statements about a running suite hold, or what was done for one order.
    Audit(audit::Audit),
    /// Look at messages that could not be handled, and replay, mend or skip them.
    #[command(subcommand)]
    Parked(parked::Command),
    /// Place orders at a rate or from clients, measure what becomes of them, and audit the suite.
    Load(load::Load),
    /// Create or list the topics on an existing Kafka.
    #[command(subcommand)]
    Topics(setup::Topics),
    /// Apply every service's migrations to existing databases.
    Migrate(setup::Migrate),
    /// Put the first catalogue on the shelves of a running suite.
    Seed(setup::Seed),
}

/// What runs services on this machine. Without it a program that only looks at them is half as large.
#[cfg(feature = "suite")]
#[derive(Debug, Subcommand)]
enum Here {
    /// Start the whole suite on this machine (what `amends` does without a command).
    Up(up::Up),
    /// Stop a suite that runs on this machine.
    Down(run::Where),
    /// Say what runs, and whether it is ready.
    Status(run::Where),
    /// Run one service: `amends serve payment --help` lists its settings.
    Serve(serve::Serve),
    /// Measure a part of it on this machine: release builds give the figures that count.
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Write the generated documents anew (schemas, catalogue, OpenAPI, configuration, plans).
    #[command(hide = true)]
    Generate(generate::Generate),
}

fn main() -> ExitCode {
    let command = CommandLine::parse().command;
    #[cfg(feature = "suite")]
    let command = command.unwrap_or_else(|| Command::Here(Here::Up(up::Up::default())));
    let ended = match command {
        #[cfg(feature = "suite")]
        Command::Here(command) => return command.run(),
        Command::Order(command) => command.run(),
        Command::Saga(command) => command.run(),
        Command::Audit(audit) => audit.run(),
        Command::Parked(command) => command.run(),
        Command::Load(load) => load.run(),
        Command::Topics(topics) => topics.run(),
        Command::Migrate(migrate) => migrate.run(),
        Command::Seed(seed) => seed.run(),
    };
    exit_code(ended)
}

#[cfg(feature = "suite")]
impl Here {
    fn run(self) -> ExitCode {
        exit_code(match self {
            Self::Up(up) => up.run(),
            Self::Down(place) => run::down(&place),
            Self::Status(place) => return run::status(&place),
            Self::Serve(serve) => return serve.run(),
            Self::Bench(bench) => return bench.run(),
            Self::Generate(generate) => generate.run(),
        })
    }
}

fn exit_code(ended: anyhow::Result<()>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain!("amends: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs an asynchronous command to its end.
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::CommandLine::command().debug_assert();
    }
}
