//! `amends`: starts the suite, talks to it, and runs its services.

#![cfg_attr(
    not(feature = "suite"),
    expect(dead_code, reason = "the commands that run services are left out")
)]

mod api;
mod audit;
mod bench;
mod consumer;
mod demo;
mod events;
mod format;
mod generate;
mod json;
mod load;
mod logs;
mod order;
mod output;
mod parked;
mod parts;
mod proc_stat;
mod products;
mod relay;
mod run;
mod runtime;
mod saga;
mod serve;
mod setup;
mod status;
mod suite;
mod up;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;
use shared::service::secret::{SettingError, redact};

use crate::output::complain;
#[cfg(feature = "suite")]
use crate::parts::Deed;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Amends: a reference order saga over Kafka and PostgreSQL that keeps money and stock consistent.
#[derive(Debug, Parser)]
#[command(
    name = "amends",
    version,
    max_term_width = 100,
    after_help = "New here? `amends demo` shows in five minutes what it is about. docs/tour.md is the long form, and \
                  docs/glossary.md explains the words."
)]
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
    /// Place, show, cancel and return orders.
    #[command(subcommand)]
    Order(order::Command),
    /// Follow the return of an order.
    #[command(subcommand)]
    Return(order::Returns),
    /// Show sagas, the workflows that carry out orders, and retry one that is stuck.
    #[command(subcommand)]
    Saga(saga::Command),
    /// Check that no money and no stock was lost and no order is stuck, or show what was done for one order.
    Audit(audit::Audit),
    /// Show parked messages, which a service could not handle, and retry, edit or skip them.
    #[command(subcommand)]
    Parked(parked::Command),
    /// Let the relay of a restored database send again.
    #[command(subcommand)]
    Relay(relay::Command),
    /// Set the consumed offsets of a service back, for a database that was set back in time.
    #[command(subcommand)]
    Consumer(consumer::Command),
    /// List the products, with the stock of each.
    Products(products::Products),
    /// Place many orders, measure how fast they settle, and audit the suite.
    Load(load::Load),
    /// Create the topics on an existing Kafka cluster, or list them.
    #[command(subcommand)]
    Topics(setup::Topics),
    /// Create or update the tables of every service in existing databases.
    Migrate(setup::Migrate),
    /// Add the demo products and their stock to a running suite.
    Seed(setup::Seed),
    /// Print a script that completes commands and options: `source <(amends completions bash)`.
    Completions(Completions),
}

/// The script for a shell.
#[derive(Debug, clap::Args)]
struct Completions {
    shell: Shell,
}

impl Completions {
    fn print(&self) {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut CommandLine::command(), "amends", &mut script);
        // A reader that has gone is no fault.
        let _ = std::io::stdout().write_all(&script);
    }
}

/// The commands that run services on this machine. A program without them is half as large.
#[cfg(feature = "suite")]
#[derive(Debug, Subcommand)]
enum Here {
    /// Start the whole suite on this machine (what `amends` does without a command).
    Up(up::Up),
    /// Stop a suite that runs on this machine.
    Down(run::Where),
    /// Show in five minutes what the suite does, and kill parts of it meanwhile.
    Demo(demo::Demo),
    /// Show which services and servers run, whether each is ready, and what is wrong.
    Status(status::Status),
    /// Show the logs of the suite's services, or of one of its parts.
    Logs(logs::Logs),
    /// Kill a service or a server of the suite with -9, as a crash would; the suite starts it again.
    Kill(parts::Part),
    /// Freeze a service or a server of the suite, so that it is silent, until `resume`.
    Pause(parts::Part),
    /// Let a service or a server go on that was frozen.
    Resume(parts::Part),
    /// Run one service: `amends serve payment --help` lists its settings.
    Serve(serve::Serve),
    /// Measure one part of the suite on this machine; build with --release --features jemalloc for figures that count.
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Write the documents that are generated from the code (schemas, OpenAPI, settings, metrics, plans).
    Generate(generate::Generate),
}

impl CommandLine {
    /// Reads the command line of this process. An error ends the process, and its text contains no secret.
    fn read() -> Self {
        let mut command = Self::command();
        let words: Vec<_> = std::env::args_os().collect();
        let matches = command.try_get_matches_from_mut(&words);
        let line = matches.and_then(|matches| Self::from_arg_matches(&matches));
        line.unwrap_or_else(|error| redact(error, &mut command, &words).exit())
    }
}

fn main() -> ExitCode {
    let command = CommandLine::read().command;
    #[cfg(feature = "suite")]
    let command = command.unwrap_or_else(|| Command::Here(Here::Up(up::Up::default())));
    let ended = match command {
        #[cfg(feature = "suite")]
        Command::Here(command) => return command.run(),
        Command::Order(command) => command.run(),
        Command::Return(command) => command.run(),
        Command::Products(products) => products.run(),
        Command::Saga(command) => command.run(),
        Command::Audit(audit) => audit.run(),
        Command::Parked(command) => command.run(),
        Command::Relay(command) => command.run(),
        Command::Consumer(command) => command.run(),
        Command::Load(load) => load.run(),
        Command::Topics(topics) => topics.run(),
        Command::Migrate(migrate) => migrate.run(),
        Command::Seed(seed) => seed.run(),
        Command::Completions(completions) => {
            completions.print();
            Ok(())
        }
    };
    exit_code(ended)
}

#[cfg(feature = "suite")]
impl Here {
    fn run(self) -> ExitCode {
        exit_code(match self {
            Self::Up(up) => up.run(),
            Self::Down(place) => run::down(&place),
            Self::Status(status) => return status.run(),
            Self::Demo(demo) => demo.run(),
            Self::Logs(logs) => logs.run(),
            Self::Kill(part) => part.suffer(Deed::Kill),
            Self::Pause(part) => part.suffer(Deed::Pause),
            Self::Resume(part) => part.suffer(Deed::Resume),
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
            // 64 is the exit code for invalid settings (sysexits.h).
            if error.is::<SettingError>() { ExitCode::from(64) } else { ExitCode::FAILURE }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::CommandLine::command().debug_assert();
    }
}
