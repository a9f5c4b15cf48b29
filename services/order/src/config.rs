//! Settings of order's own.

use std::time::Duration;

use shared::config::duration;

/// Settings of the order service.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// How long a request may wait for its order to settle (`Prefer: wait=N`).
    #[arg(long, env = "ORDER_LONGEST_WAIT", default_value = "60s", value_parser = duration)]
    pub longest_wait: Duration,
}
