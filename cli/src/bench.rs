//! `amends bench`: repeatable measurements of one part of the suite.

mod app;
mod ground;
mod reader;
mod relay;
mod usage;
mod writers;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
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
            Self::Relay(bench) => match bench.run() {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    complain!("amends: {error:#}");
                    ExitCode::FAILURE
                }
            },
            Self::Service { flags } => {
                let program = OsString::from("amends bench service");
                shared::service::main_from::<app::Bench>(std::iter::once(program).chain(flags))
            }
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
    if let Some(file) = file {
        let text = serde_json::to_string_pretty(&figures)? + "\n";
        std::fs::write(file, text).with_context(|| format!("can't write {}", file.display()))?;
    }
    Ok(())
}
