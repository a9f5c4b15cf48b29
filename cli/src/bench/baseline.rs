//! `amends bench baseline`: the yardstick alone.

use std::path::PathBuf;
use std::time::Duration;

use shared::service::config::duration;

use crate::load::{self, Parts, baseline};
use crate::run::Where;

/// How the yardstick is measured.
#[derive(Debug, clap::Args)]
#[command(
    group(clap::ArgGroup::new("loop").required(true).args(["rate", "clients"])),
    after_help = "Examples:\n  \
        amends bench baseline --clients 128                 as fast as 128 clients can\n  \
        amends bench baseline --rate 20                     a constant rate\n\n\
        The exit code is 1 if an order has not ended, or if money or stock does not add up.\n\
        `amends load --against-baseline` measures the suite and the yardstick in turn."
)]
pub struct Baseline {
    /// Open loop: place orders at this rate. Latencies count from the time at which an order was due.
    #[arg(long, value_name = "ORDERS/S", value_parser = load::rate)]
    rate: Option<f64>,
    /// Closed loop: place orders from this many clients. Each waits until its order has ended before it places the next.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    clients: Option<u16>,
    /// How long to place orders after the warm-up.
    #[arg(long, default_value = "15s", value_parser = load::positive)]
    duration: Duration,
    /// How long to place orders that are not measured, before the others.
    #[arg(long, default_value = "5s", value_parser = duration)]
    warmup: Duration,
    /// Write the figures to this file too, as one JSON object.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    place: Where,
}

impl Baseline {
    pub fn run(self) -> anyhow::Result<()> {
        load::runtime()?.block_on(async {
            let parts = Parts::new(self.rate.into_iter().collect(), self.warmup, &[self.duration]);
            let figures = baseline::measure(&self.place, &parts, self.clients).await?;
            figures.print();
            load::write_json(&figures, self.json.as_deref())?;
            load::succeed(&figures.failures())
        })
    }
}
