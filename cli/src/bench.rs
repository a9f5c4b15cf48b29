//! `amends bench`: repeatable measurements of one part of the suite.

mod app;
mod baseline;
mod ground;
mod reader;
mod relay;
mod usage;
mod writers;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use self::ground::Ground;
use self::writers::Pace;
use crate::output::{complain, say};
use crate::run::Where;

/// The parts that can be measured.
#[derive(Debug, clap::Subcommand)]
pub enum Bench {
    /// Measure how quickly the relay, which sends the rows of the outbox to Kafka, does so.
    ///
    /// With --rows, the outbox already has the rows when the relay begins. The time runs until the broker has acknowledged
    /// all of them and the relay's checkpoint is past them. With --rate, rows are committed on a schedule. The time of each
    /// row runs from the return of its commit to its receipt by a consumer. The writers and the relay are different
    /// processes.
    Relay(Relay),
    /// Measure a yardstick: the business of an order by plain SQL, without saga and broker, and not crash-safe.
    ///
    /// It uses the PostgreSQL of the running suite, in five databases of its own, which are created at the start and dropped
    /// at the end. A process of its own takes each order by HTTP, answers 202, and then carries the order out: seven
    /// transactions, each with a row that makes it repeatable. 5 % of the orders are declined. Latencies end at the time
    /// that the database gives the last change of the order. CPU is that of the process and of PostgreSQL.
    ///
    /// Nothing else may use the suite meanwhile, or the figures mean nothing: both would share the processors and the disk.
    /// PostgreSQL's processes that serve the suite do not count.
    Baseline(baseline::Baseline),
    /// Run the process that the yardstick measures.
    #[command(hide = true)]
    BaselineApp,
    /// Run the measured process: a service that has only a relay.
    #[command(hide = true, disable_help_flag = true)]
    Service {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        flags: Vec<OsString>,
    },
}

/// How the relay is measured.
#[derive(Debug, clap::Args)]
pub struct Relay {
    /// Send this many rows of 650 bytes that already wait.
    #[arg(long, default_value_t = 200_000, conflicts_with = "rate", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    rows: u32,
    /// Commit this many rows a second.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: Option<u32>,
    /// With --rate, how long rows are written and measured.
    #[arg(long, default_value = "30s", requires = "rate", value_parser = shared::service::config::duration)]
    duration: Duration,
    /// With --rate, the rows of one transaction. Most steps of a saga write two: an event and a reply.
    #[arg(long, default_value_t = 2, requires = "rate", value_parser = clap::value_parser!(u32).range(1..=1000))]
    per_commit: u32,
    /// With --rate, how long rows are written before they are measured.
    #[arg(long, default_value = "5s", requires = "rate", value_parser = shared::service::config::duration)]
    warmup: Duration,
    /// Write the figures to this file too, as one JSON object.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    place: Where,
}

impl Bench {
    pub fn run(self) -> ExitCode {
        match self {
            Self::Relay(bench) => ended(bench.run()),
            Self::Baseline(bench) => ended(bench.run()),
            Self::BaselineApp => ended(crate::load::baseline::serve()),
            Self::Service { flags } => {
                let program = OsString::from("amends bench service");
                shared::service::main_from::<app::Bench>(std::iter::once(program).chain(flags))
            }
        }
    }
}

fn ended(run: anyhow::Result<()>) -> ExitCode {
    match run {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain!("amends: {error:#}");
            ExitCode::FAILURE
        }
    }
}

impl Relay {
    fn run(self) -> anyhow::Result<()> {
        let ground = Ground::lay(&self.place)?;
        let measured = crate::runtime::block_on(async {
            ground.prepare().await?;
            let measured = tokio::select! {
                measured = self.measure(&ground) => measured,
                _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("stopped before the end")),
            };
            ground.clear().await;
            measured
        });
        ground.leave();
        measured
    }

    async fn measure(&self, ground: &Ground) -> anyhow::Result<()> {
        match self.rate {
            None => report(&relay::drain(ground, self.rows).await?, self.json.as_deref()),
            Some(rate) => {
                let pace =
                    Pace { rate, per_commit: self.per_commit, warmup: self.warmup, duration: self.duration };
                report(&relay::paced(ground, pace).await?, self.json.as_deref())
            }
        }
    }
}

/// Prints the figures, one a line, and writes them to a file as one JSON object if there is one.
fn report(figures: &impl Serialize, file: Option<&Path>) -> anyhow::Result<()> {
    let figures = serde_json::to_value(figures)?;
    for (name, value) in figures.as_object().into_iter().flatten() {
        say!("  {name:<28} {value}");
    }
    crate::load::write_json(&figures, file)
}
