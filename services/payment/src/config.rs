//! Payment's own settings.

use std::path::PathBuf;
use std::time::Duration;

use shared::service::config::duration;

/// Settings of the payment service.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// How long the simulated card provider takes to answer.
    #[arg(long, env = "PAYMENT_PROVIDER_LATENCY", default_value = "0ms", value_parser = duration)]
    pub provider_latency: Duration,
    /// While a file with this path exists, the simulated card provider does not answer. For tests and demonstrations.
    #[arg(long, env = "PAYMENT_PROVIDER_OUTAGE")]
    pub provider_outage: Option<PathBuf>,
}
