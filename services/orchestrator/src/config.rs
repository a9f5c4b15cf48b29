//! The orchestrator's own settings.

use std::time::Duration;

use shared::service::config::duration;

/// Settings of the orchestrator.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// How long every step may take before it is asked again, instead of what the plans say. For tests and
    /// demonstrations.
    #[arg(long, env = "ORCHESTRATOR_STEP_DEADLINE", value_parser = duration)]
    pub step_deadline: Option<Duration>,
}
