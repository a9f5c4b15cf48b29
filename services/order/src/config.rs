//! Order's own settings.

use std::time::Duration;

use shared::service::config::duration;

/// Settings of the order service.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// How long a request may wait for its order to settle (`Prefer: wait=N`).
    #[arg(long, env = "ORDER_LONGEST_WAIT", default_value = "60s", value_parser = duration)]
    pub longest_wait: Duration,
    /// Orders are refused with 503 while more rows of the outbox than this number wait to be sent.
    #[arg(long, env = "ORDER_OUTBOX_LIMIT", default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub outbox_limit: u32,
    /// Orders are refused with 503 while more orders than this number are pending, over all replicas.
    #[arg(long, env = "ORDER_PENDING_LIMIT", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub pending_limit: u32,
}
