//! Settings of shipping's own.

use std::time::Duration;

use shared::config::duration;

/// Settings of the shipping service.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// How long the simulated carrier takes to answer.
    #[arg(long, env = "SHIPPING_CARRIER_LATENCY", default_value = "0ms", value_parser = duration)]
    pub carrier_latency: Duration,
}
