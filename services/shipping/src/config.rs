//! Shipping's own settings.

use std::path::PathBuf;
use std::time::Duration;

use shared::service::config::duration;

/// Settings of the shipping service.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// How long the simulated carrier takes to answer.
    #[arg(long, env = "SHIPPING_CARRIER_LATENCY", default_value = "0ms", value_parser = duration)]
    pub carrier_latency: Duration,
    /// While a file with this path exists, the simulated carrier does not answer. For tests and demonstrations.
    #[arg(long, env = "SHIPPING_CARRIER_OUTAGE")]
    pub carrier_outage: Option<PathBuf>,
    /// How long after its order's confirmation the simulated carrier picks a parcel up.
    #[arg(long, env = "SHIPPING_DISPATCH_AFTER", default_value = "60s", value_parser = duration)]
    pub dispatch_after: Duration,
    /// How long after the pick-up the simulated carrier delivers a parcel.
    #[arg(long, env = "SHIPPING_DELIVER_AFTER", default_value = "60s", value_parser = duration)]
    pub deliver_after: Duration,
}
